"""Running a whole cluster on one machine: what the `mufakat` command does besides `serve`.

The nodes know nothing of this package. It starts, stops and inspects them from outside, through processes or
containers and through their HTTP routes.

    home, settings, topology     what is known about the cluster, from any shell
    backend, local, containers   the two ways to run nodes; processes, engine: what these use
    calls, probe, roster         what its nodes say, and which nodes belong to it by that
    lifecycle, nodes, members,   what the commands do
    repair, status, configuring, backups, restoring, recovering, ...
"""
