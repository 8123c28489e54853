"""openai-python as its README uses it. Arguments: base_url key model. Prints one JSON object of what it got."""

import json
import sys

import openai

base_url, key, model = sys.argv[1:]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}


def client(api_key=key):
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key=api_key, max_retries=0, timeout=30)


def say(text, *more, to=None, **fields):
    return (to or client()).chat.completions.create(messages=[{"role": "user", "content": text}, *more], **{"model": model, **fields})


def refusal(call):
    try:
        call()
    except openai.OpenAIError as error:
        return [type(error).__name__, error.code]


whole = say("hello")
streamed, streamed_usage = "", None
for chunk in say("hello", stream=True, stream_options={"include_usage": True}):
    streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    streamed_usage = chunk.usage or streamed_usage
with client().chat.completions.stream(model=model, messages=[{"role": "user", "content": "weather"}], tools=[WEATHER]) as stream:
    asked = stream.get_final_completion().choices[0].message
results = [{"role": "tool", "tool_call_id": call.id, "content": "12"} for call in asked.tool_calls]
after = say("weather", asked.to_dict(), *results, tools=[WEATHER])
print(
    json.dumps(
        {
            "text": whole.choices[0].message.content,
            "finish": whole.choices[0].finish_reason,
            "usage": [whole.usage.prompt_tokens, whole.usage.completion_tokens],
            "streamed": streamed,
            "streamed_usage": [streamed_usage.prompt_tokens, streamed_usage.completion_tokens],
            "tools": [[call.function.name, json.loads(call.function.arguments)] for call in asked.tool_calls],
            "after_tools": after.choices[0].message.content,
            "errors": {
                "wrong key": refusal(lambda: say("hello", to=client("sk-wrong"))),
                "no such model": refusal(lambda: say("hello", model="no-such-model")),
                "limited": refusal(lambda: say("too busy")),
            },
            "models": [found.id for found in client().models.list()],
        }
    )
)
