"""Running a whole cluster on one machine: what the `mufakat` command does besides `serve`.

The nodes know nothing of this package. It starts, stops and looks at them from outside, through processes or
containers and through their HTTP routes.

    home, settings, topology     what is known of the cluster, whoever asks from wherever
    backend, local, containers   the two ways to run nodes; processes, engine: what these stand on
    calls, probe, roster         what its nodes say, and who belongs to it by what they say
    lifecycle, nodes, members,   what the commands do
    repair, status, configuring, backups, restoring, recovering, ...
"""
