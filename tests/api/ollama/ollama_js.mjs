// Drives the npm package `ollama` against a server, and prints what it found as one JSON object.
// Environment: BASE_URL, and NODE_MODULES_FOLDER, a folder `node_modules` with `ollama` in it.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_MODULES_FOLDER + "/");
const { Ollama } = require("ollama");

const client = new Ollama({ host: process.env.BASE_URL });
const model = "starter";
const options = { temperature: 0 };
const hello = [{ role: "user", content: "Hello!" }];
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather in a city.", parameters } }];
const format = {
  type: "object",
  properties: { name: { type: "string" }, country: { type: "string" } },
  required: ["name", "country"],
  additionalProperties: false,
};
const found = {};

found.models = (await client.list()).models.map((one) => one.name);
found.loaded = (await client.generate({ model })).done_reason;
const whole = await client.chat({ model, messages: hello, options });
found.whole = whole.message.content;
found.count = whole.eval_count;

let text = "";
let last;
for await (const part of await client.chat({ model, messages: hello, options, stream: true })) {
  text += part.message.content;
  last = part;
}
found.streamed = text;
found.streamedCount = last.eval_count;
found.generated = (await client.generate({ model, prompt: "Hello!", options })).response;

const asked = (await client.chat({ model, messages: weather, tools, options })).message;
found.call = asked.tool_calls[0].function;
const result = { role: "tool", tool_name: "get_weather", content: "sunny, 21 degrees" };
found.answered = (await client.chat({ model, messages: [...weather, asked, result], tools, options })).message.content;

const city = [{ role: "user", content: "Give me a JSON object with name Paris and country France." }];
found.parsed = JSON.parse((await client.chat({ model, messages: city, format, options })).message.content);
found.embedding = (await client.embed({ model, input: ["a", "b"] })).embeddings.map((one) => one.length);
found.shown = (await client.show({ model })).model_info["general.architecture"];
found.running = (await client.ps()).models.map((one) => one.name);
found.copied = (await client.copy({ source: model, destination: "js-copy" })).status;
found.deleted = (await client.delete({ model: "js-copy" })).status;
const statuses = [];
for await (const part of await client.pull({ model, stream: true })) statuses.push(part.status);
found.pulled = statuses;

try {
  await client.chat({ model: "nope", messages: hello });
} catch (error) {
  found.unknown = [error.status_code, error.message];
}

const endless = { temperature: 2, num_predict: 1500, top_k: 0 };
const stream = await client.generate({ model, prompt: "Hello!", raw: true, format: { type: "array", items: { type: "integer" }, minItems: 400 }, options: endless, stream: true });
try {
  for await (const part of stream) stream.abort();
} catch (error) {
  found.aborted = error.name;
}
console.log(JSON.stringify(found));
