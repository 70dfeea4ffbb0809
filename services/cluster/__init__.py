"""Running a whole cluster on one machine: what the `mufakat` command does besides `serve`.

The nodes know nothing of this package. It starts, stops and looks at them from outside, through processes or
containers and through the HTTP routes that anybody may call. `operate` holds what a command does, `local` and
`containers` are the two ways to carry it out, and the rest are their parts.
"""
