// SPDX-License-Identifier: GPL-2.0
/*
 * Count what collapse_file() does, in C and in Rust.
 *
 * The file collapse_file_stats in debugfs takes one word per write:
 *
 *	1	count, beginning with nothing
 *	0	stop counting, and keep what was counted
 *	reset	forget what was counted
 *
 * and anything else is EINVAL. It is off until told otherwise. Reading tells whether it
 * is on, and a line for each count that is not zero:
 *
 *	counting 1
 *	c result pte_mapped_hugepage 12
 *	c hold_ns 65536 12
 *	rust result exceed_none_pte 1
 *	rust result pte_mapped_hugepage 30
 *	rust hold_ns 32768 29
 *	rust hold_ns 65536 2
 *
 * "result" lines: how many collapses have ended so, in the words of the trace event
 * huge_memory:mm_khugepaged_collapse_file. "hold_ns" lines: for how many of them the
 * page-cache lock was held so long where they replaced the range or gave up, which not
 * all get to. From that many nanoseconds on, up to twice as many; the last line there can
 * be, 1073741824, has no upper end.
 *
 * A collapse that is under way when counting begins or ends, or counts are forgotten,
 * may be in one of its two lines only.
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

/* By the highest bit that is set; none in the first, and all from 2^30 on in the last. */
#define NR_BUCKETS 32

/* Each value of enum scan_result has one. */
static const struct trace_print_flags results[] = { SCAN_STATUS };

static const char * const impls[] = {
	[COLLAPSE_FILE_C] = "c",
	[COLLAPSE_FILE_RUST] = "rust",
};

/*
 * Not per CPU: a collapse copies 2 MiB, beside which the cache line of another CPU is
 * nothing, and others can only be set to zero by who owns them.
 */
static struct {
	atomic64_t results[ARRAY_SIZE(results)];
	atomic64_t holds[NR_BUCKETS];
} counts[NR_COLLAPSE_FILE_IMPLS];

DEFINE_STATIC_KEY_FALSE(collapse_file_stats_key);

/* Two writers may not both find the key in its old state. */
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
