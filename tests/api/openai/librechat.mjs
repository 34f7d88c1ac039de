// Drives `@librechat/agents`, what LibreChat's server speaks to models with, and prints what it found as one JSON object.
// Environment: BASE_URL, and NODE_MODULES_FOLDER, a folder `node_modules` with that package in it.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_MODULES_FOLDER + "/");
const agents = require("@librechat/agents");
const { HumanMessage } = require("@langchain/core/messages");
const { tool } = require("@langchain/core/tools");

const client = { model: "starter", apiKey: "local", configuration: { baseURL: process.env.BASE_URL } };
const provider = agents.Providers.OPENAI;

async function chat(text, tools) {
  const usage = [];
  const { contentParts, aggregateContent } = agents.createContentAggregator();
  const customHandlers = { [agents.GraphEvents.CHAT_MODEL_END]: new agents.ModelEndHandler(usage) };
  for (const name of ["ON_MESSAGE_DELTA", "ON_RUN_STEP", "ON_RUN_STEP_DELTA", "ON_RUN_STEP_COMPLETED"]) {
    customHandlers[agents.GraphEvents[name]] = { handle: (event, data) => aggregateContent({ event, data }) };
  }
  const llmConfig = { provider, streaming: true, streamUsage: true, user: "u1", temperature: 0, ...client };
  const graphConfig = { type: "standard", tools, llmConfig };
  const run = await agents.Run.create({ runId: "r", returnContent: true, customHandlers, graphConfig });
  const configurable = { thread_id: "t", user_id: "u1" };
  const config = { runId: "r", configurable, streamMode: "values", version: "v2" };
  await run.processStream({ messages: [new HumanMessage(text)] }, config);
  return { run, usage, contentParts: contentParts.filter(Boolean) };
}

const found = {};
const hello = await chat("Hello!");
found.text = hello.contentParts.map((part) => part.text).join("");
found.usage = hello.usage[0];
const titleMethod = agents.TitleMethod.COMPLETION;
const titled = { provider, clientOptions: client, inputText: "Hello!", titleMethod, chainOptions: {} };
found.title = (await hello.run.generateTitle({ ...titled, contentParts: hello.contentParts })).title;
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const description = "The weather in a city.";
const weather = tool(async () => "sunny, 21 degrees", { name: "get_weather", description, schema });
found.tools = (await chat("What is the weather in Paris?", [weather])).contentParts;
try {
  await chat("Hello! ".repeat(3000));
} catch (error) {
  found.overflow = [error.constructor.name, error.message];
}
console.log(JSON.stringify(found));
process.exit(0);
