#!/usr/bin/env python3
"""A cluster whose nodes all come back at other addresses, as pods do, knows nobody's place any more. CLUSTER MEET tells it:
a node that answers under a known name is where it answered. Sources: redis/redis#4289, redis/redis#6128.
"""
from case import *

ns = make(2, 2)
for n in ns: n.kill()
for i, n in enumerate(ns):
    n.ip = '127.0.1.%d' % (i + 2); n.start()
for n in ns[1:]: check('CLUSTER MEET', n('CLUSTER', 'MEET', ns[0].ip, ns[0].port), 'OK')
places = sorted('%s:%d' % (n.ip, n.port) for n in ns)
def settled(n):
    known = nodes(n)
    return ok(n) and sorted(v[0] for v in known.values()) == places and not any('fail' in v[1] for v in known.values())
for n in ns:
    expect('node %s knows all places' % n.ip, until(lambda: settled(n), 30), n('CLUSTER', 'NODES').decode())
for n in ns[2:]:
    expect('replica %s follows' % n.ip, until(lambda: info(n.c, 'replication').get('master_link_status') == 'up', 20))
done('16-meet-after-all-addresses-changed')
