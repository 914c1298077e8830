"""The OpenAI Images API over our own jobs: what is sent to it, what it answers, its stream, its models.

Front process, IOLoop thread; blocks on nothing. Written against what the `openai` package sends and reads.
"""
