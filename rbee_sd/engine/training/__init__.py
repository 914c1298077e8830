"""How the embedded model `demo` is made: pictures and captions by code, training, and the measuring of what it draws.

A developer runs it through `bin/train-demo-model`, in a process of its own; the worker never imports it, it loads the
folder `demo/` like any other model. Everything here blocks.
"""
