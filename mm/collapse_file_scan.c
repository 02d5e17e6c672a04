// SPDX-License-Identifier: GPL-2.0
/*
 * Patience for collapse_scan_file(), when it scans for the Rust collapse_file().
 *
 * A task that reads or writes a page holds a reference for a moment, and so does
 * the LRU batch of a CPU. The scan for C fails at once when it finds one. The scan
 * for Rust waits for a bounded time, because collapse_file() in Rust does so too.
 */

#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/timekeeping.h>
#include <linux/xarray.h>

#include "khugepaged.h"

/* MADV_COLLAPSE waits about as long as the copy takes. khugepaged has more time. */
#define SCAN_PATIENCE_MADVISE		(1 * NSEC_PER_MSEC)
#define SCAN_PATIENCE_KHUGEPAGED	(10 * NSEC_PER_MSEC)

struct scan_patience scan_patience(const struct collapse_control *cc)
{
	struct scan_patience patience = { };

	/* Once per scan, so it need not be a branch that is patched. */
	if (static_key_enabled(&rust_collapse_file_key))
		patience.left = collapse_control_is_khugepaged(cc) ?
				SCAN_PATIENCE_KHUGEPAGED : SCAN_PATIENCE_MADVISE;
	return patience;
}

static bool folio_is_unused(struct folio *folio)
{
	return folio_test_lru(folio) &&
	       folio_expected_ref_count(folio) + 1 == folio_ref_count(folio);
}

/*
 * Wait until the folio is on the LRU and only the page cache, page tables and the
 * caller refer to it. Return false if that does not happen in time.
 *
 * Context: may sleep. The caller holds a reference and no lock. rcu_read_lock() is
 * released while this waits, so all CPUs' LRU batches can be drained here.
 */
bool folio_becomes_unused(struct folio *folio, struct xa_state *xas,
			  struct scan_patience *patience)
{
	u64 begin, spent;
	bool unused;

	if (patience->left <= 0)
		return false;

	xas_pause(xas);
	rcu_read_unlock();
	begin = ktime_get_ns();
	do {
		cpu_relax();
		cond_resched();
		unused = folio_is_unused(folio);
		spent = ktime_get_ns() - begin;
		if (!unused && !patience->drained && spent > patience->left / 2) {
			patience->drained = true;
			lru_add_drain_all();
			unused = folio_is_unused(folio);
		}
	} while (!unused && spent < patience->left && !fatal_signal_pending(current));
	patience->left -= spent;
	rcu_read_lock();
	return unused;
}
