// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for collapse_scan_file() when it scans for the Rust collapse_file().
 *
 * A task that reads or writes a page holds a short-lived reference, and so does
 * the LRU batch of a CPU. The scan for C fails at once when it finds one. The scan
 * for Rust continues, because collapse_file() in Rust waits for such a reference
 * with the folio locked. Only there is the check exact.
 */

#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include "khugepaged.h"

struct scan_patience scan_patience(void)
{
	/* This runs once per scan, so it does not need a static branch. */
	return (struct scan_patience){
		.patient = static_key_enabled(&rust_collapse_file_key),
	};
}

/*
 * Return whether the scan may continue with a folio that is in use. Such a folio is not
 * on the LRU, or has more references than those of the page cache, page tables and the
 * caller. The scan must not continue if the folio may be pinned for DMA.
 *
 * collapse_file() cannot drain the LRU batches of all CPUs, because it holds folio
 * locks. This function drains them, once per scan.
 *
 * Context: may sleep. The caller holds a reference to the folio, the RCU read lock and
 * no other lock. The function drops the RCU read lock while it drains the batches.
 */
bool folio_may_become_unused(struct folio *folio, struct xa_state *xas,
			     struct scan_patience *patience)
{
	if (!patience->patient)
		return false;

	if (!patience->drained) {
		patience->drained = true;
		xas_pause(xas);
		rcu_read_unlock();
		lru_add_drain_all();
		rcu_read_lock();
	}
	return !folio_maybe_dma_pinned(folio);
}
