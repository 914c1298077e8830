"""The API describes itself: what handlers say of their routes, the OpenAPI document made of it, and a page of that.

Front process. `description` holds the words, `answers` and `events` what bodies hold; `document` is made of them with
`schemas`; `outline`, `kinds` and `curl` turn it into what `page` shows; `handlers` are `/openapi.json` and `/docs`.
"""
