"""``/v1/responses``, put together from chat completions; no response is stored.

Source: OpenAI API reference, Responses.
"""
