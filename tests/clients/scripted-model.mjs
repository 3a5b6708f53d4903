// A model for agents, over loopback: it calls the tool `ask` with each of its questions, in one session, and then repeats
// what the tool returned last. It speaks Anthropic's Messages and OpenAI's Responses and Chat Completions.

import { createServer } from "node:http";

// Agents put the name of the MCP server in front of the tool's, or around it.
const ASK = /^(.*[_-])?ask$/;
// Qwen Code offers a tool that calls those whose schemas it does not send at first.
const BRIDGE = "tool_call";
const BRIDGED = "mcp__brunix__ask";
const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 };
const sse = (events, named) =>
  events.map((event) => `${named ? `event: ${event.type}\n` : ""}data: ${JSON.stringify(event)}\n\n`).join("");
const said = (results) => `The tool returned ${JSON.stringify(results.at(-1))}`;

// Returns the arguments of the next call, if there is one. The session is in the result of the call before.
function nextCall(questions, results) {
  if (results.length >= questions.length) return undefined;
  const session_id = JSON.stringify(results.at(-1) ?? "").match(/session_id\W+([0-9a-f]{32})/)?.[1];
  return JSON.stringify({ question: questions[results.length], session_id });
}

// Returns the next message as Anthropic's events.
function messages({ messages, tools = [] }, questions) {
  const results = messages.flatMap(({ content }) => content).filter(({ type }) => type === "tool_result");
  const words = nextCall(questions, results);
  const tool = words && tools.find(({ name }) => ASK.test(name));
  const [block, delta, stop_reason] = tool
    ? [{ type: "tool_use", id: `toolu_${results.length}`, name: tool.name, input: {} }, { type: "input_json_delta", partial_json: words }, "tool_use"]
    : [{ type: "text", text: "" }, { type: "text_delta", text: said(results) }, "end_turn"];
  const message = { id: "msg_1", type: "message", role: "assistant", model: "scripted", content: [], stop_reason: null, stop_sequence: null, usage };
  return sse([
    { type: "message_start", message },
    { type: "content_block_start", index: 0, content_block: block },
    { type: "content_block_delta", index: 0, delta },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage },
    { type: "message_stop" },
  ], true);
}

// Returns the next item as the events of Responses. Tools can be in a namespace.
function responses({ input, tools = [] }, questions) {
  const results = [input].flat().filter(({ type }) => type === "function_call_output");
  const words = nextCall(questions, results);
  const [tool] = !words ? [] : tools
    .flatMap((each) => each.tools?.map((inner) => ({ ...inner, namespace: each.name })) ?? [each])
    .filter(({ name }) => ASK.test(name ?? ""));
  const item = tool
    ? { type: "function_call", id: `fc_${results.length}`, call_id: `call_${results.length}`, name: tool.name, namespace: tool.namespace, arguments: words }
    : { type: "message", id: "msg_1", role: "assistant", content: [{ type: "output_text", text: said(results), annotations: [] }] };
  const response = { id: "resp_1", object: "response", model: "scripted", output: [{ ...item, status: "completed" }], usage };
  return sse([
    { type: "response.created", response: { ...response, output: [], status: "in_progress" } },
    { type: "response.output_item.added", output_index: 0, item: { ...item, status: "in_progress" } },
    { type: "response.output_item.done", output_index: 0, item: { ...item, status: "completed" } },
    { type: "response.completed", response: { ...response, status: "completed" } },
  ], true);
}

// Returns the next message as the chunks of Chat Completions, or as a whole.
function chat({ messages, tools = [], stream }, questions) {
  const results = messages.filter(({ role }) => role === "tool").map(({ content }) => content);
  const question = nextCall(questions, results);
  const names = !question ? [] : tools.map((each) => each.function?.name ?? "");
  const name = names.find((each) => ASK.test(each)) ?? names.find((each) => each === BRIDGE);
  const words = name === BRIDGE ? JSON.stringify({ name: BRIDGED, arguments: JSON.parse(question) }) : question;
  const call = name && { id: `call_${results.length}`, type: "function", function: { name, arguments: words } };
  const message = { role: "assistant", ...(call ? { content: null, tool_calls: [call] } : { content: said(results) }) };
  const finish_reason = call ? "tool_calls" : "stop";
  const about = { id: "chatcmpl-1", created: 1, model: "scripted" };
  const counts = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  if (!stream) {
    const choices = [{ index: 0, message, finish_reason }];
    return JSON.stringify({ ...about, object: "chat.completion", choices, usage: counts });
  }
  const delta = call ? { ...message, tool_calls: [{ index: 0, ...call }] } : message;
  const chunk = { ...about, object: "chat.completion.chunk" };
  return `${sse([
    { ...chunk, choices: [{ index: 0, delta, finish_reason: null }] },
    { ...chunk, choices: [{ index: 0, delta: {}, finish_reason }] },
    { ...chunk, choices: [], usage: counts },
  ])}data: [DONE]\n\n`;
}

// Starts the model. It asks the questions that are set.
export async function scriptedModel() {
  const model = { questions: [] };
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const asked = request.method === "POST" ? JSON.parse(body) : {};
    const { pathname } = new URL(request.url, "http://model");
    const answer = { messages, responses, completions: chat }[pathname.split("/").at(-1)];
    response.setHeader("Content-Type", asked.stream ? "text/event-stream" : "application/json");
    response.end(answer && request.method === "POST"
      ? answer(asked, model.questions)
      : JSON.stringify({ object: "list", data: [{ id: "scripted", object: "model" }] }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  model.url = `http://127.0.0.1:${server.address().port}`;
  model.close = () => server.close();
  return model;
}
