/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that mm/khugepaged.c and the Rust collapse_file() in
 * mm/collapse_file.rs share. Private to mm/.
 */
#ifndef _MM_KHUGEPAGED_H
#define _MM_KHUGEPAGED_H

#include <linux/jump_label.h>
#include <linux/timekeeping.h>
#include <linux/types.h>

struct address_space;
struct collapse_control;
struct file;
struct folio;
struct mm_struct;

/*
 * Result of a scan or a collapse. SCAN_STATUS in
 * include/trace/events/huge_memory.h has a string for each one, and
 * madvise_collapse_errno() maps each one to an errno.
 */
enum scan_result {
	SCAN_FAIL,
	SCAN_SUCCEED,
	SCAN_NO_PTE_TABLE,
	SCAN_PMD_MAPPED,
	SCAN_EXCEED_NONE_PTE,
	SCAN_EXCEED_SWAP_PTE,
	SCAN_EXCEED_SHARED_PTE,
	SCAN_PTE_NON_PRESENT,
	SCAN_PTE_UFFD,
	SCAN_PTE_MAPPED_HUGEPAGE,
	SCAN_LACK_REFERENCED_PAGE,
	SCAN_PAGE_NULL,
	SCAN_SCAN_ABORT,
	SCAN_PAGE_COUNT,
	SCAN_PAGE_LRU,
	SCAN_PAGE_LOCK,
	SCAN_PAGE_ANON,
	SCAN_PAGE_LAZYFREE,
	SCAN_PAGE_COMPOUND,
	SCAN_ANY_PROCESS,
	SCAN_VMA_NULL,
	SCAN_VMA_CHECK,
	SCAN_ADDRESS_RANGE,
	SCAN_DEL_PAGE_LRU,
	SCAN_ALLOC_HUGE_PAGE_FAIL,
	SCAN_CGROUP_CHARGE_FAIL,
	SCAN_TRUNCATED,
	SCAN_PAGE_HAS_PRIVATE,
	SCAN_STORE_FAILED,
	SCAN_COPY_MC,
	SCAN_PAGE_FILLED,
	SCAN_PAGE_DIRTY_OR_WRITEBACK,
	SCAN_NO_SPACE,
};

#ifdef CONFIG_RUST_COLLAPSE_FILE

#define VISIBLE_IF_RUST_COLLAPSE_FILE

/* From mm/khugepaged.c, called by Rust. */
enum scan_result alloc_charge_folio(struct folio **foliop, struct mm_struct *mm,
				    struct collapse_control *cc, unsigned int order);
void retract_page_tables(struct address_space *mapping, pgoff_t pgoff);
bool collapse_control_is_khugepaged(const struct collapse_control *cc);
size_t collapse_control_size(void);	/* for KUnit */

/* From mm/collapse_file.rs. collapse_file() in mm/khugepaged.c documents the contract. */
enum scan_result rust_collapse_file(struct mm_struct *mm, unsigned long addr,
				    struct file *file, pgoff_t start,
				    struct collapse_control *cc);

/* State of a scan, for folios that other tasks use. See mm/collapse_file_scan.c. */
struct scan_patience {
	bool patient;	/* The scan is for the Rust implementation. */
	bool drained;	/* The scan has drained the LRU batches of all CPUs. */
};

/* From mm/collapse_file_scan.c. */
struct scan_patience scan_patience(void);
bool folio_may_become_unused(struct folio *folio, struct xa_state *xas,
			     struct scan_patience *patience);

/* From mm/collapse_file_switch.c. */
DECLARE_STATIC_KEY_MAYBE(CONFIG_RUST_COLLAPSE_FILE_DEFAULT_RUST, rust_collapse_file_key);
extern struct kobj_attribute collapse_file_attr;

static inline bool rust_collapse_file_enabled(void)
{
	return static_branch_maybe(CONFIG_RUST_COLLAPSE_FILE_DEFAULT_RUST,
				   &rust_collapse_file_key);
}

#else /* !CONFIG_RUST_COLLAPSE_FILE */

#define VISIBLE_IF_RUST_COLLAPSE_FILE static

static inline bool rust_collapse_file_enabled(void)
{
	return false;
}

static inline enum scan_result rust_collapse_file(struct mm_struct *mm, unsigned long addr,
						  struct file *file, pgoff_t start,
						  struct collapse_control *cc)
{
	return SCAN_FAIL;
}

struct scan_patience { };

static inline struct scan_patience scan_patience(void)
{
	return (struct scan_patience){ };
}

static inline bool folio_may_become_unused(struct folio *folio, struct xa_state *xas,
					   struct scan_patience *patience)
{
	return false;
}

#endif /* CONFIG_RUST_COLLAPSE_FILE */

enum collapse_file_impl {
	COLLAPSE_FILE_C,
	COLLAPSE_FILE_RUST,
	NR_COLLAPSE_FILE_IMPLS
};

#ifdef CONFIG_COLLAPSE_FILE_STATS

/* From mm/collapse_file_stats.c. */
DECLARE_STATIC_KEY_FALSE(collapse_file_stats_key);
void __count_collapse_file(enum collapse_file_impl impl, enum scan_result result);
void __count_collapse_file_hold(enum collapse_file_impl impl, u64 ns);

/* Count the result of a collapse that has ended. */
static inline void count_collapse_file(enum collapse_file_impl impl, enum scan_result result)
{
	if (static_branch_unlikely(&collapse_file_stats_key))
		__count_collapse_file(impl, result);
}

/*
 * Mark the begin and the end of the last critical section of a collapse. A collapse replaces
 * the range or gives up there. Both functions are called with the page cache lock held. The
 * time therefore excludes pending interrupts, which run when the lock is released.
 *
 * Do not use local_clock() here. If sched_clock is unstable, local_clock() advances only on
 * ticks, and interrupts are off.
 */
static inline u64 collapse_file_hold_begin(void)
{
	return static_branch_unlikely(&collapse_file_stats_key) ? ktime_get_ns() : 0;
}

static inline void collapse_file_hold_end(enum collapse_file_impl impl, u64 begin)
{
	/* @begin is 0 if counting was off when the critical section began. */
	if (static_branch_unlikely(&collapse_file_stats_key) && begin)
		__count_collapse_file_hold(impl, ktime_get_ns() - begin);
}

#else /* !CONFIG_COLLAPSE_FILE_STATS */

static inline void count_collapse_file(enum collapse_file_impl impl, enum scan_result result)
{
}

static inline u64 collapse_file_hold_begin(void)
{
	return 0;
}

static inline void collapse_file_hold_end(enum collapse_file_impl impl, u64 begin)
{
}

#endif /* CONFIG_COLLAPSE_FILE_STATS */

#endif /* _MM_KHUGEPAGED_H */
