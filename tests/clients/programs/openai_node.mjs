// openai-node as its README uses it. Arguments: base_url key model. Prints one JSON object of what it got.
import OpenAI from "openai";

const [baseUrl, key, model] = process.argv.slice(2);
const WEATHER = {
  type: "function",
  function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
};
const connect = (apiKey = key) => new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey, maxRetries: 0, timeout: 30_000 });
const client = connect();
const say = (text, { more = [], to = client, ...fields } = {}) =>
  to.chat.completions.create({ model, messages: [{ role: "user", content: text }, ...more], ...fields });
const refusal = (call) => call.then(() => null, (error) => [error.constructor.name, error.code]);
const counted = (usage) => [usage.prompt_tokens, usage.completion_tokens];

const whole = await say("hello");
let streamed = "";
let streamedUsage = null;
for await (const chunk of await say("hello", { stream: true, stream_options: { include_usage: true } })) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  streamedUsage = chunk.usage ?? streamedUsage;
}
const stream = client.chat.completions.stream({ model, messages: [{ role: "user", content: "weather" }], tools: [WEATHER] });
const asked = (await stream.finalChatCompletion()).choices[0].message;
const results = asked.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "12" }));
const after = await say("weather", { more: [asked, ...results], tools: [WEATHER] });
const models = [];
for await (const found of client.models.list()) models.push(found.id);

console.log(
  JSON.stringify({
    text: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    usage: counted(whole.usage),
    streamed,
    streamed_usage: counted(streamedUsage),
    tools: asked.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
    after_tools: after.choices[0].message.content,
    errors: {
      "wrong key": await refusal(say("hello", { to: connect("sk-wrong") })),
      "no such model": await refusal(say("hello", { model: "no-such-model" })),
      limited: await refusal(say("too busy")),
    },
    models,
  }),
);
