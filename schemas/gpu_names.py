"""Names of GPUs that vendors, clouds and users use, to tell a slip of the pen from a model.

A name that is not here is no error: a server under a desk has what it has.
"""

from __future__ import annotations

_NAMES = """
a2 a10 a10g a16 a30 a40 a100 a800 a4000 a4500 a5000 a6000 b200 b300 gb200 gb300 gh200 h20 h100 h100nvl h200 h800
k80 l4 l40 l40s m40 m60 p4 p40 p100 p4000 p5000 p6000 t4 t4g t1000 v100 titanrtx titanv titanxp
gtx1060 gtx1070 gtx1070ti gtx1080 gtx1080ti gtx1650 gtx1660 gtx1660ti rtx2000ada rtx2060 rtx2070 rtx2080 rtx2080ti
rtx3050 rtx3060 rtx3060ti rtx3070 rtx3070ti rtx3080 rtx3080ti rtx3090 rtx3090ti rtx4000 rtx4000ada rtx4060 rtx4060ti
rtx4070 rtx4070super rtx4070ti rtx4080 rtx4080super rtx4090 rtx4500ada rtx5000 rtx5000ada rtx5060 rtx5060ti rtx5070
rtx5070ti rtx5080 rtx5090 rtx6000 rtx6000ada rtx8000 rtxa2000 rtxa4000 rtxa4500 rtxa5000 rtxa6000 rtxpro4000
rtxpro4500 rtxpro5000 rtxpro6000 mi50 mi60 mi100 mi210 mi250 mi250x mi300a mi300x mi325x mi350x mi355x radeonprov520
v520 v710 gaudi gaudi2 gaudi3 n150 n300 v2 v3 v4 v5e v5litepod v5p v6e
"""
KNOWN = frozenset(_NAMES.split())
"""In lower case, without spaces."""
MOST_IN_ONE_INSTANCE = 16
"""GPUs: no vendor sells an instance with more."""
