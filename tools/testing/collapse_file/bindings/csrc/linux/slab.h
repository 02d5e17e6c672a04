/* SPDX-License-Identifier: GPL-2.0 */
/* Nodes are counted, can be refused, and stay readable for who must not read them. */
#ifndef _SIM_SLAB_H
#define _SIM_SLAB_H

#include <linux/types.h>
#include <linux/gfp.h>

struct kmem_cache;
struct list_lru;

void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp);

#endif /* _SIM_SLAB_H */
