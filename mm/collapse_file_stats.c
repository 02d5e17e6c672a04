// SPDX-License-Identifier: GPL-2.0
/*
 * Count the results and the lock hold times of collapse_file(), in C and in Rust.
 *
 * The file collapse_file_stats in debugfs takes one word per write:
 *
 *	1	start counting from zero
 *	0	stop counting, and keep the counts
 *	reset	set the counts to zero
 *
 * A write of any other word fails with EINVAL. Counting is off after boot. A read prints
 * whether counting is on, and one line for each count that is not zero:
 *
 *	counting 1
 *	c result pte_mapped_hugepage 12
 *	c hold_ns 65536 12
 *	rust result exceed_none_pte 1
 *	rust result pte_mapped_hugepage 30
 *	rust hold_ns 32768 29
 *	rust hold_ns 65536 2
 *
 * A "result" line has the number of collapses with that result. The names are those of
 * the trace event huge_memory:mm_khugepaged_collapse_file.
 *
 * A "hold_ns" line has the number of collapses that held the page cache lock for at least
 * that many nanoseconds, and for less than twice as many. The last possible line,
 * 1073741824, has no upper bound. The time is that of the last critical section, where a
 * collapse replaces the range or gives up. A collapse that fails earlier has no such time.
 *
 * A collapse may be in only one of its two lines if counting starts or stops while it
 * runs, or if the counts are reset.
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <trace/events/huge_memory.h>
#include "khugepaged.h"

/* fls64() of the time selects the bucket. The last one also has all longer times. */
#define NR_BUCKETS 32

/* The names of all values of enum scan_result. */
static const struct trace_print_flags results[] = { SCAN_STATUS };

static const char * const impls[] = {
	[COLLAPSE_FILE_C] = "c",
	[COLLAPSE_FILE_RUST] = "rust",
};

/*
 * Global counters, not per-CPU ones: contention on a counter does not matter, because a
 * collapse copies 2 MiB. Any CPU can reset a global counter.
 */
static struct {
	atomic64_t results[ARRAY_SIZE(results)];
	atomic64_t holds[NR_BUCKETS];
} counts[NR_COLLAPSE_FILE_IMPLS];

DEFINE_STATIC_KEY_FALSE(collapse_file_stats_key);

/* Serialises writers, so that they change the key one after the other. */
static DEFINE_MUTEX(stats_mutex);

void __count_collapse_file(enum collapse_file_impl impl, enum scan_result result)
{
	if (!WARN_ON_ONCE(result >= ARRAY_SIZE(results)))
		atomic64_inc(&counts[impl].results[result]);
}

void __count_collapse_file_hold(enum collapse_file_impl impl, u64 ns)
{
	atomic64_inc(&counts[impl].holds[min(fls64(ns), NR_BUCKETS - 1)]);
}

static void forget(void)
{
	for (int impl = 0; impl < NR_COLLAPSE_FILE_IMPLS; impl++) {
		for (int i = 0; i < ARRAY_SIZE(results); i++)
			atomic64_set(&counts[impl].results[i], 0);
		for (int i = 0; i < NR_BUCKETS; i++)
			atomic64_set(&counts[impl].holds[i], 0);
	}
}

static int stats_show(struct seq_file *m, void *v)
{
	seq_printf(m, "counting %d\n", static_key_enabled(&collapse_file_stats_key));
	for (int impl = 0; impl < NR_COLLAPSE_FILE_IMPLS; impl++) {
		for (int i = 0; i < ARRAY_SIZE(results); i++) {
			s64 count = atomic64_read(&counts[impl].results[results[i].mask]);

			if (count)
				seq_printf(m, "%s result %s %lld\n", impls[impl],
					   results[i].name, count);
		}
		for (int i = 0; i < NR_BUCKETS; i++) {
			s64 count = atomic64_read(&counts[impl].holds[i]);

			if (count)
				seq_printf(m, "%s hold_ns %lu %lld\n", impls[impl],
					   i ? BIT(i - 1) : 0, count);
		}
	}
	return 0;
}

static ssize_t stats_write(struct file *file, const char __user *buffer, size_t len,
			   loff_t *pos)
{
	char word[8] = "";

	if (len >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buffer, len))
		return -EFAULT;

	guard(mutex)(&stats_mutex);
	if (sysfs_streq(word, "1")) {
		forget();
		static_branch_enable(&collapse_file_stats_key);
	} else if (sysfs_streq(word, "0")) {
		static_branch_disable(&collapse_file_stats_key);
	} else if (sysfs_streq(word, "reset")) {
		forget();
	} else {
		return -EINVAL;
	}
	return len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(stats);

static int __init stats_init(void)
{
	debugfs_create_file("collapse_file_stats", 0600, NULL, NULL, &stats_fops);
	return 0;
}
late_initcall(stats_init);
