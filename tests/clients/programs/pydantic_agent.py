"""A pydantic-ai agent with a tool. Arguments: base_url key model. Prints one JSON object of what it got."""

import asyncio
import json
import sys

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

base_url, key, model = sys.argv[1:]
called = []


def agent(api_key=key, name=model):
    made = Agent(OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{base_url}/v1", api_key=api_key)))

    @made.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        called.append(["get_weather", {"city": city}])
        return f"12 in {city}"

    return made


async def refusal(made, text="hello"):
    try:
        await made.run(text)
    except ModelHTTPError as error:
        return [type(error).__name__, error.body["code"]]


async def main():
    whole = await agent().run("hello")
    async with agent().run_stream("hello") as stream:
        streamed = [piece async for piece in stream.stream_text(delta=True)]
        streamed_usage = stream.usage
    after = await agent().run("weather")
    usage, streamed_usage = (value() if callable(value) else value for value in (whole.usage, streamed_usage))
    return {
        "text": whole.output,
        "finish": whole.all_messages()[-1].finish_reason,
        "usage": [usage.input_tokens, usage.output_tokens],
        "streamed": "".join(streamed),
        "streamed_usage": [streamed_usage.input_tokens, streamed_usage.output_tokens],
        "tools": sorted(called, key=str, reverse=True),
        "after_tools": after.output,
        "errors": {
            "wrong key": await refusal(agent("sk-wrong")),
            "no such model": await refusal(agent(name="no-such-model")),
            "limited": await refusal(agent(), "too busy"),
        },
    }


print(json.dumps(asyncio.run(main())))
