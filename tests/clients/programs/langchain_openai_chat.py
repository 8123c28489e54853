"""langchain-openai as an application uses it. Arguments: base_url key model. Prints one JSON object of what it got."""

import json
import sys

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

base_url, key, model = sys.argv[1:]


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"12 in {city}"


def chat(**fields):
    settings = {"base_url": f"{base_url}/v1", "api_key": key, "model": model, "max_retries": 0, "timeout": 30, **fields}
    return ChatOpenAI(**settings)


def refusal(call):
    try:
        call()
    except openai.OpenAIError as error:
        return [type(error).__name__, error.code]


def counted(usage):
    return [usage["input_tokens"], usage["output_tokens"]]


whole = chat().invoke("hello")
streamed = None
for chunk in chat(stream_usage=True).stream("hello"):
    streamed = chunk if streamed is None else streamed + chunk
agent = chat().bind_tools([get_weather])
question = HumanMessage("weather")
asked = None
for chunk in agent.stream([question]):
    asked = chunk if asked is None else asked + chunk
results = [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in asked.tool_calls]
after = agent.invoke([question, asked, *results])
print(
    json.dumps(
        {
            "text": whole.content,
            "finish": whole.response_metadata["finish_reason"],
            "usage": counted(whole.usage_metadata),
            "streamed": streamed.content,
            "streamed_usage": counted(streamed.usage_metadata),
            "tools": [[call["name"], call["args"]] for call in asked.tool_calls],
            "after_tools": after.content,
            "errors": {
                "wrong key": refusal(lambda: chat(api_key="sk-wrong").invoke("hello")),
                "no such model": refusal(lambda: chat(model="no-such-model").invoke("hello")),
                "limited": refusal(lambda: chat().invoke("too busy")),
            },
        }
    )
)
