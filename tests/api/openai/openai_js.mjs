// Drives the npm package `openai` against a server, and prints what it found as one JSON object.
// Environment: BASE_URL, and NODE_MODULES_FOLDER, a folder `node_modules` with `openai` in it.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_MODULES_FOLDER + "/");
const { OpenAI } = require("openai");

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none" });
const model = "starter";
const hello = [{ role: "user", content: "Hello!" }];
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather in a city.", parameters } }];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, country: { type: "string" } },
  required: ["name", "country"],
  additionalProperties: false,
};
const found = {};

found.models = (await client.models.list()).data.map((one) => one.id);
const whole = await client.chat.completions.create({ model, messages: hello, temperature: 0 });
found.whole = whole.choices[0].message.content;
found.usage = whole.usage;

let text = "";
let last;
const stream_options = { include_usage: true };
const options = { model, messages: hello, temperature: 0, stream: true, stream_options };
for await (const chunk of await client.chat.completions.create(options)) {
  text += chunk.choices[0]?.delta.content ?? "";
  last = chunk;
}
found.streamed = text;
found.streamedUsage = last.usage;

const runner = client.chat.completions.stream({ model, messages: weather, tools, temperature: 0 });
const asked = (await runner.finalChatCompletion()).choices[0].message;
found.call = asked.tool_calls[0].function;
const result = { role: "tool", tool_call_id: asked.tool_calls[0].id, content: "sunny, 21 degrees" };
const messages = [...weather, asked, result];
const answer = await client.chat.completions.create({ model, messages, tools, temperature: 0 });
found.answered = answer.choices[0].message.content;

const response_format = { type: "json_schema", json_schema: { name: "city", strict: true, schema } };
const city = [{ role: "user", content: "Give me a JSON object with name Paris and country France." }];
const parsed = await client.chat.completions.parse({ model, messages: city, response_format, temperature: 0 });
found.parsed = parsed.choices[0].message.parsed;

const embedded = await client.embeddings.create({ model, input: ["a", "b"] });
found.embedding = embedded.data.map((one) => one.embedding.length);
const response = client.responses.stream({ model, input: "Hello!", temperature: 0 });
found.response = (await response.finalResponse()).output_text;

async function failure(request) {
  try {
    await client.chat.completions.create(request);
  } catch (error) {
    return [error.status, error.code];
  }
}
found.unknown = await failure({ model: "nope", messages: hello });
const long = [{ role: "user", content: "Hello! ".repeat(3000) }];
found.overflow = await failure({ model, messages: long, stream: true });
console.log(JSON.stringify(found));
