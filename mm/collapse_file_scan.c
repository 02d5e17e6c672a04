// SPDX-License-Identifier: GPL-2.0
/*
 * Patience for collapse_scan_file(), when it scans for the Rust collapse_file().
 *
 * A task that reads or writes a page holds a reference for a moment, and so does
 * the LRU batch of a CPU. The scan for C fails at once when it finds one. The scan
 * for Rust goes on, because collapse_file() in Rust waits for such a reference with
 * the folio locked. The check is exact only there.
 */

#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include "khugepaged.h"

struct scan_patience scan_patience(void)
{
	/* Once per scan, so it need not be a branch that is patched. */
	return (struct scan_patience){
		.patient = static_key_enabled(&rust_collapse_file_key),
	};
}

/*
 * Return whether the scan may go on with a folio that is in use: it is not on the LRU,
 * or has more references than those of the page cache, page tables and the caller. The
 * scan does not go on if the folio is pinned for long.
 *
 * collapse_file() cannot drain the LRU batches of all CPUs, because it has folios
 * locked. That is done here, once per scan.
 *
 * Context: may sleep. The caller holds a reference and no lock. rcu_read_lock() is
 * released while the batches are drained.
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
