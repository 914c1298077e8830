"""How a picture was made, read back out of its file. Front process or command line; pure, nothing is decoded or opened.

`picture.parameters_in` is the way in. Everything that a file can make large is bounded.
"""
