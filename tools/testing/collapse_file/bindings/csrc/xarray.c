// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's own XArray, with nodes that the simulation allocates.
 *
 * The simulation keeps the memory of a freed node until the end of the
 * execution. It reports an access to such a node.
 */
#define XA_DEBUG
/* Without it, xa_state.c has a helper for irqs_disabled(), as xa_lock.rs has. */
#define CONFIG_SMP

#include <linux/bug.h>
#include <string.h>
#include <linux/types.h>
#include <linux/kernel.h>
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#define __rust_helper

#include COLLAPSE_XARRAY_C
#include "../../../../../rust/helpers/xa_state.c"

struct kmem_cache *radix_tree_node_cachep;

void *sim_node_alloc(size_t size, bool may_sleep);
void sim_node_free(void *node);
void sim_node_update(const void *node, bool locked);
void sim_call_rcu(void *node);

/* Takes the place of shadow_nodes. Only its address is used. */
static char sim_shadow_nodes;

void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp)
{
	struct xa_node *node = sim_node_alloc(sizeof(*node), gfpflags_allow_blocking(gfp));

	if (!node)
		return NULL;
	memset(node, 0, sizeof(*node));
	INIT_LIST_HEAD(&node->private_list);
	return node;
}

void radix_tree_node_rcu_free(struct rcu_head *head)
{
	struct xa_node *node = container_of(head, struct xa_node, rcu_head);

	sim_node_free(node);
}

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	struct xa_node *node = container_of(head, struct xa_node, rcu_head);

	sim_call_rcu(node);
}

/*
 * Lists nodes that hold only values, as workingset_update_node() does. The
 * XArray also calls the update callback before it frees a node. That node is
 * empty, so it leaves the list. The simulation keeps the list, because the list
 * entry of a node shares its memory with the rcu_head.
 */
void sim_node_listed(const void *node, bool listed);

static void sim_update_node(struct xa_node *node)
{
	sim_node_update(node, lockdep_is_held(&node->array->xa_lock));
	sim_node_listed(node, node->count && node->count == node->nr_values);
}

void sim_mapping_set_update(struct xa_state *xas)
{
	xas_set_update(xas, sim_update_node);
	xas_set_lru(xas, (struct list_lru *)&sim_shadow_nodes);
}

bool sim_has_update(const struct xa_state *xas)
{
	return xas->xa_update == sim_update_node;
}

struct xarray *sim_xas_array(const struct xa_state *xas)
{
	return xas->xa;
}

unsigned long sim_xas_index(const struct xa_state *xas)
{
	return xas->xa_index;
}

/* Returns the number of indices that a store by this cursor covers. */
unsigned long sim_xas_span(const struct xa_state *xas)
{
	return (xas->xa_sibs + 1UL) << xas->xa_shift;
}

void sim_xas_lock_irq(struct xa_state *xas)
{
	xas_lock_irq(xas);
}

void sim_xas_unlock_irq(struct xa_state *xas)
{
	xas_unlock_irq(xas);
}

void sim_xa_init(struct xarray *xa)
{
	xa_init_flags(xa, XA_FLAGS_LOCK_IRQ | XA_FLAGS_ACCOUNT);
}

void *sim_mk_value(unsigned long value)
{
	return xa_mk_value(value);
}

unsigned long sim_to_value(const void *entry)
{
	return xa_to_value(entry);
}

_Static_assert(sizeof(struct xa_state) == 7 * sizeof(long), "mirrored in src/xa.rs");
_Static_assert(sizeof(struct xarray) == 2 * sizeof(long), "mirrored in src/xa.rs");
