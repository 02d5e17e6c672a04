// SPDX-License-Identifier: GPL-2.0
/*
 * Select the C or the Rust collapse_file() with a static key. The boot
 * parameter thp_collapse_file= and the sysfs file
 * /sys/kernel/mm/transparent_hugepage/khugepaged/collapse_file set the key.
 *
 * The scan of a range reads the key twice: first to know whether it is
 * patient, and then to call an implementation. The key may change in between,
 * because each implementation checks all folios itself. Neither one leaves
 * state for the next collapse, so a switch only has to change the key.
 */
#define pr_fmt(fmt) "khugepaged: " fmt

#include <linux/cleanup.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "khugepaged.h"

#ifdef CONFIG_RUST_COLLAPSE_FILE_DEFAULT_RUST
DEFINE_STATIC_KEY_TRUE(rust_collapse_file_key);
#else
DEFINE_STATIC_KEY_FALSE(rust_collapse_file_key);
#endif

static const char * const implementations[] = { "c", "rust" };

/* Serialises writers, so that they change the key one after the other. */
static DEFINE_MUTEX(rust_collapse_file_mutex);

static int rust_collapse_file_set(const char *name)
{
	int rust = sysfs_match_string(implementations, name);

	if (rust < 0)
		return rust;

	guard(mutex)(&rust_collapse_file_mutex);
	if (rust)
		static_branch_enable(&rust_collapse_file_key);
	else
		static_branch_disable(&rust_collapse_file_key);
	return 0;
}

static ssize_t collapse_file_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", rust_collapse_file_enabled() ? "c [rust]" : "[c] rust");
}

static ssize_t collapse_file_store(struct kobject *kobj, struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	int err = rust_collapse_file_set(buf);

	return err ? err : count;
}

struct kobj_attribute collapse_file_attr = __ATTR_RW(collapse_file);

static int __init setup_thp_collapse_file(char *name)
{
	if (rust_collapse_file_set(name))
		pr_warn("thp_collapse_file=%s: neither c nor rust, ignored\n", name);
	return 1;
}
__setup("thp_collapse_file=", setup_thp_collapse_file);
