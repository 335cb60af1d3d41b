"""A real server that plays the platforms: it keeps jobs, and can be told to be slow, to lie and to cut a stream.

The demo, the tests, docker compose and the benchmarks run it. It shares no parsing with the drivers, or a mistake made
twice would pass. One file a platform registers its routes; jobs, files, faults and control are common to all.
"""
