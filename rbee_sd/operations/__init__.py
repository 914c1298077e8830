"""Operations: what may be asked for. Front process, IOLoop thread; nothing here blocks.

One file a family, one row in `table` each.
"""
