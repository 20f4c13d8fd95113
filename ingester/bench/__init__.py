"""How fast a machine, or a store, takes data: a corpus, a sink, and the product's own figures.

`corpora`, `part10` and `corpus_files` make files; `sink` is a server in another process that costs
far less than its client; `measure` runs a client in a fresh process and has the kernel count.
`benchmarks/` stands on these.
"""
