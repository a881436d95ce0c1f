"""The procedural world written as the published data sets are: fixtures whose true geometry is known.

Each module writes one data set's layout:

    write(out, clips) -> list[Written]

`out` is the root of all data sets; the module makes its own folder there. Every clip becomes one scene.
`OUTDOORS = True` asks for clips under a sky, `FOV` for a field of view over the larger side (radians), where the layout
knows no other.
"""
