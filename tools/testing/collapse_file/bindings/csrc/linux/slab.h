/* SPDX-License-Identifier: GPL-2.0 */
/* The allocation of nodes, which the simulation counts and can make fail. */
#ifndef _SIM_SLAB_H
#define _SIM_SLAB_H

#include <linux/types.h>
#include <linux/gfp.h>

struct kmem_cache;
struct list_lru;

void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp);

#endif /* _SIM_SLAB_H */
