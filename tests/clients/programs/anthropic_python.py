"""anthropic-python as its README uses it. Arguments: base_url key model. Prints one JSON object of what it got."""

import json
import sys

import anthropic

base_url, key, model = sys.argv[1:]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client(api_key=key):
    return anthropic.Anthropic(base_url=base_url, api_key=api_key, max_retries=0, timeout=30)


def say(text, *more, to=None, **fields):
    messages = [{"role": "user", "content": text}, *more]
    return (to or client()).messages.create(messages=messages, **{"model": model, "max_tokens": 200, **fields})


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def refusal(call):
    try:
        call()
    except anthropic.APIStatusError as error:
        return [type(error).__name__, error.type]


whole = say("hello")
with client().messages.stream(model=model, max_tokens=200, messages=[{"role": "user", "content": "hello"}]) as stream:
    streamed = "".join(stream.text_stream)
    final = stream.get_final_message()
with client().messages.stream(model=model, max_tokens=200, tools=[WEATHER], messages=[{"role": "user", "content": "weather"}]) as stream:
    asked = stream.get_final_message()
calls = [block for block in asked.content if block.type == "tool_use"]
results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "12"} for call in calls]}
after = say("weather", {"role": "assistant", "content": asked.content}, results, tools=[WEATHER])
print(
    json.dumps(
        {
            "text": text_of(whole),
            "finish": whole.stop_reason,
            "usage": [whole.usage.input_tokens, whole.usage.output_tokens],
            "streamed": streamed,
            "streamed_usage": [final.usage.input_tokens, final.usage.output_tokens],
            "tools": [[call.name, call.input] for call in calls],
            "after_tools": text_of(after),
            "errors": {
                "wrong key": refusal(lambda: say("hello", to=client("sk-wrong"))),
                "no such model": refusal(lambda: say("hello", model="no-such-model")),
                "limited": refusal(lambda: say("too busy")),
            },
            "models": [found.id for found in client().models.list()],
        }
    )
)
