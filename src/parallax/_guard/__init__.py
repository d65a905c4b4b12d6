"""The parts of the side-effect guard, whose face is `parallax._effects`.

From the ground up: `lookup` looks real objects up without running them, `values` says where a
value may come from, `code` decodes bytecode, `frame` interprets it with `ops_data` and `ops_flow`;
`names`, `objects`, `installed` (by the tables of `mutators`) and `calls` say what operations mean;
`evidence` weighs what was found, `fingerprint` watches state while items run.
"""
