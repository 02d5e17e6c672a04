// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection for collapse_file(), for tests.
 *
 * Most failures of a collapse depend on a race and cannot be reproduced from user
 * space. A kprobe can divert the functions that collapse_file() calls, in C and in
 * Rust, for one task. The task then fails or waits there. The file
 * collapse_file_inject in debugfs takes one command per write:
 *
 *	FUNCTION fail [FIRST [COUNT [TID]]]		return a failure
 *	FUNCTION park [FIRST [COUNT [TID]]]		sleep before the call
 *	FUNCTION park-after [FIRST [COUNT [TID]]]	sleep after the call
 *	FUNCTION stall [FIRST [COUNT [TID]]]		busy-wait before the call
 *	FUNCTION go					resume the task
 *	FUNCTION off					disarm, and resume the task
 *	off						the same for all functions
 *
 * FIRST is the number of the first call to divert, and 1 is the next call that task
 * TID makes. COUNT is the number of calls to divert, by default 1. TID is a thread ID
 * in the initial PID namespace, by default the writer. A task sleeps for at most
 * PARK_SECONDS and busy-waits for at most STALL_SECONDS. A read prints a line for each
 * function: its name, its state, and the number of calls since it was armed.
 *
 * A kprobe handler must not sleep. It only redirects the task to the stand-in of the
 * function. The stand-in is an ordinary function that runs in the context of the call,
 * so it may sleep if the real function may.
 */
#include <linux/bio.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kprobes.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/seq_file.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/xarray.h>
#include "internal.h"
#include "khugepaged.h"

#define PARK_SECONDS 30
#define STALL_SECONDS 8

enum action { FAIL, PARK, PARK_AFTER, STALL };

struct hook {
	struct kprobe kp;
	void *stand_in;
	/* The function is called in atomic context, or it cannot fail. */
	bool never_parks, never_fails;
	unsigned int stall_ms;		/* The longest stall, or 0 if it must not stall. */
	/* Another hook that is armed together with this one, and counts its calls here. */
	struct hook *with;

	/* Written with hooks_lock held while the kprobe is not registered. */
	enum action action;
	struct task_struct *task;
	unsigned int first, count;

	/* Written only by @task while the kprobe is registered. */
	unsigned int calls;
	bool inside;

	bool armed, parked, go;
};

/* The functions that can be diverted. */
enum {
	HOOK_folio_alloc,
	HOOK_mem_cgroup_charge,
	HOOK_kmem_cache_alloc_lru,
	HOOK_xas_nomem,
	HOOK_shmem_get_folio,
	HOOK_folio_mapping,
	HOOK_filemap_release_folio,
	HOOK_try_to_unmap,
	HOOK_try_to_unmap_file_run,
	HOOK_try_to_unmap_flush,
	HOOK_shmem_charge,
	HOOK_copy_mc,
	HOOK_memory_failure_queue,
	HOOK_filemap_flush,
	HOOK_page_cache_sync_ra,
	HOOK_folio_mark_dirty,
	HOOK_xas_fill_empty,
	HOOK_folio_remove_rmap_ptes,
	HOOK_retract_page_tables,
	HOOK_submit_bio,
	HOOK_reclaim_pages,
	NR_HOOKS
};

static struct hook hooks[NR_HOOKS];
static DEFINE_MUTEX(hooks_lock);
static DECLARE_WAIT_QUEUE_HEAD(hooks_wait);

static bool is_due(struct hook *hook)
{
	hook->calls++;
	return hook->calls >= hook->first && hook->calls - hook->first < hook->count;
}

static int divert(struct kprobe *kp, struct pt_regs *regs)
{
	struct hook *hook = container_of(kp, struct hook, kp);

	/* @inside: the stand-in calls the real function, which must not be diverted again. */
	if (current != hook->task || hook->inside || !is_due(hook))
		return 0;
	hook->inside = true;
	instruction_pointer_set(regs, (unsigned long)hook->stand_in);
	return 1;
}

/* A kprobe with a post_handler is never optimised to a jump, which cannot divert the task. */
static void not_optimised(struct kprobe *kp, struct pt_regs *regs, unsigned long flags)
{
}

static void park(struct hook *hook)
{
	WRITE_ONCE(hook->parked, true);
	if (!wait_event_killable_timeout(hooks_wait, READ_ONCE(hook->go), PARK_SECONDS * HZ))
		pr_warn("collapse_file_inject: timed out waiting for 'go' on %s\n",
			hook->kp.symbol_name);
	WRITE_ONCE(hook->go, false);
	WRITE_ONCE(hook->parked, false);
}

static void stall(struct hook *hook)
{
	unsigned long end = jiffies + msecs_to_jiffies(hook->stall_ms);

	WRITE_ONCE(hook->parked, true);
	/*
	 * mdelay() may take longer than requested, so check jiffies too. Jiffies alone do not
	 * suffice: they stand still if this CPU is the timekeeper, because interrupts are off.
	 */
	for (int ms = 0; !READ_ONCE(hook->go) && ms < hook->stall_ms &&
	     time_before(jiffies, end); ms++)
		mdelay(1);
	WRITE_ONCE(hook->go, false);
	WRITE_ONCE(hook->parked, false);
}

static bool begins(struct hook *hook)
{
	/* The kprobe also diverts an interrupt that runs on top of the task. It must not sleep. */
	if (!in_task())
		return true;
	if (hook->action == STALL)
		stall(hook);
	if (hook->action == PARK)
		park(hook);
	return hook->action != FAIL;
}

static void ends(struct hook *hook)
{
	if (hook->action == PARK_AFTER && in_task())
		park(hook);
	WRITE_ONCE(hook->inside, false);
}

#define STAND_IN(name, type, failure, function, params, args)		\
static type stand_in_for_##name params					\
{									\
	type ret = failure;						\
									\
	if (begins(&hooks[HOOK_##name]))				\
		ret = function args;					\
	ends(&hooks[HOOK_##name]);					\
	return ret;							\
}

#define STAND_IN_VOID(name, function, params, args)			\
static void stand_in_for_##name params					\
{									\
	if (begins(&hooks[HOOK_##name]))				\
		function args;						\
	ends(&hooks[HOOK_##name]);					\
}

STAND_IN(folio_alloc, struct folio *, NULL, __folio_alloc_noprof,
	 (gfp_t gfp, unsigned int order, int nid, nodemask_t *nodemask),
	 (gfp, order, nid, nodemask))
#ifdef CONFIG_MEMCG
STAND_IN(mem_cgroup_charge, int, -ENOMEM, __mem_cgroup_charge,
	 (struct folio *folio, struct mm_struct *mm, gfp_t gfp), (folio, mm, gfp))
#endif
STAND_IN(kmem_cache_alloc_lru, void *, NULL, kmem_cache_alloc_lru_noprof,
	 (struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp), (cache, lru, gfp))
STAND_IN(xas_nomem, bool, false, xas_nomem, (struct xa_state *xas, gfp_t gfp), (xas, gfp))
STAND_IN(shmem_get_folio, int, -ENOMEM, shmem_get_folio,
	 (struct inode *inode, pgoff_t index, loff_t write_end, struct folio **foliop,
	  enum sgp_type sgp),
	 (inode, index, write_end, foliop, sgp))
STAND_IN(folio_mapping, struct address_space *, NULL, folio_mapping,
	 (const struct folio *folio), (folio))
STAND_IN(filemap_release_folio, bool, false, filemap_release_folio,
	 (struct folio *folio, gfp_t gfp), (folio, gfp))
STAND_IN_VOID(try_to_unmap_flush, try_to_unmap_flush, (void), ())
STAND_IN(shmem_charge, bool, false, shmem_charge, (struct inode *inode, long pages),
	 (inode, pages))
#ifdef CONFIG_X86_64
unsigned long copy_mc_enhanced_fast_string(void *dst, const void *src, unsigned int len);
STAND_IN(copy_mc, unsigned long, len, copy_mc_enhanced_fast_string,
	 (void *dst, const void *src, unsigned int len), (dst, src, len))
#endif
STAND_IN_VOID(memory_failure_queue, memory_failure_queue, (unsigned long pfn, int flags),
	      (pfn, flags))

STAND_IN(filemap_flush, int, -EIO, filemap_flush, (struct address_space *mapping), (mapping))
STAND_IN_VOID(page_cache_sync_ra, page_cache_sync_ra,
	      (struct readahead_control *ractl, unsigned long req_count), (ractl, req_count))
STAND_IN(folio_mark_dirty, bool, false, folio_mark_dirty, (struct folio *folio), (folio))
STAND_IN(xas_fill_empty, unsigned long, 0, xas_fill_empty,
	 (struct xa_state *xas, unsigned long max, void *entry), (xas, max, entry))
STAND_IN_VOID(folio_remove_rmap_ptes, folio_remove_rmap_ptes,
	      (struct folio *folio, struct page *page, int nr_pages, struct vm_area_struct *vma),
	      (folio, page, nr_pages, vma))
#ifdef CONFIG_RUST_COLLAPSE_FILE
STAND_IN_VOID(retract_page_tables, retract_page_tables,
	      (struct address_space *mapping, pgoff_t start), (mapping, start))
#endif

/* Diverts a task that writes back, to keep folios under writeback or to inject an error. */
#ifdef CONFIG_BLOCK
static void stand_in_for_submit_bio(struct bio *bio)
{
	struct hook *hook = &hooks[HOOK_submit_bio];

	if (begins(hook))
		submit_bio(bio);
	else
		bio_io_error(bio);
	ends(hook);
}
#endif

/* Diverts a task that reclaims, to keep folios off the LRU. */
STAND_IN(reclaim_pages, unsigned long, 0, reclaim_pages, (struct list_head *folios), (folios))

/* try_to_unmap() cannot fail. The failure is that it finds a dirty bit in a page table. */
static void stand_in_for_try_to_unmap(struct folio *folio, enum ttu_flags flags)
{
	struct hook *hook = &hooks[HOOK_try_to_unmap];
	bool clean = begins(hook);

	try_to_unmap(folio, flags);
	if (!clean)
		folio_mark_dirty(folio);
	ends(hook);
}

/* Each folio that try_to_unmap_file_run() unmaps counts as a call of try_to_unmap(). */
static unsigned int stand_in_for_try_to_unmap_file_run(struct folio **folios, unsigned int nr,
						       enum ttu_flags flags, int refs, bool clean)
{
	struct hook *hook = &hooks[HOOK_try_to_unmap];
	unsigned int done = 0, i;
	bool dirty = false;

	for (i = 0; i < nr && !(dirty && clean); i++) {
		if (!folio_mapped(folios[i]) || !is_due(hook))
			continue;
		if (done < i)
			done += try_to_unmap_file_run(folios + done, i - done, flags, refs, clean);
		if (done < i)
			break;
		WRITE_ONCE(hook->inside, true);
		dirty = !begins(hook);
		done += try_to_unmap_file_run(folios + i, 1, flags, refs, clean);
		if (dirty)
			folio_mark_dirty(folios[i]);
		ends(hook);
	}
	if (i == nr && done < nr)
		done += try_to_unmap_file_run(folios + done, nr - done, flags, refs, clean);
	ends(&hooks[HOOK_try_to_unmap_file_run]);
	return done;
}

#define HOOK(name, function, ...)					\
	[HOOK_##name] = {						\
		.kp = {							\
			.symbol_name = function,			\
			.pre_handler = divert,				\
			.post_handler = not_optimised,			\
		},							\
		.stand_in = stand_in_for_##name,			\
		__VA_ARGS__						\
	}

static struct hook hooks[NR_HOOKS] = {
	HOOK(folio_alloc, "__folio_alloc_noprof"),
#ifdef CONFIG_MEMCG
	HOOK(mem_cgroup_charge, "__mem_cgroup_charge"),
#endif
	HOOK(kmem_cache_alloc_lru, "kmem_cache_alloc_lru_noprof", .never_parks = true),
	HOOK(xas_nomem, "xas_nomem"),
	HOOK(shmem_get_folio, "shmem_get_folio"),
	HOOK(folio_mapping, "folio_mapping", .never_parks = true),
	HOOK(filemap_release_folio, "filemap_release_folio"),
	HOOK(try_to_unmap, "try_to_unmap", .with = &hooks[HOOK_try_to_unmap_file_run]),
	/* The hook of try_to_unmap() arms this one. */
	HOOK(try_to_unmap_file_run, "try_to_unmap_file_run"),
	HOOK(try_to_unmap_flush, "try_to_unmap_flush", .never_fails = true),
	HOOK(shmem_charge, "shmem_charge"),
#ifdef CONFIG_X86_64
	/* copy_mc_to_kernel() begins with a jump label, which cannot be probed. */
	HOOK(copy_mc, "copy_mc_enhanced_fast_string"),
#endif
	HOOK(memory_failure_queue, "memory_failure_queue", .never_parks = true),
	HOOK(filemap_flush, "filemap_flush"),
	HOOK(page_cache_sync_ra, "page_cache_sync_ra", .never_fails = true),
	/* Called in the last critical section of a shmem collapse, right before the commit. */
	HOOK(folio_mark_dirty, "folio_mark_dirty", .never_fails = true, .never_parks = true,
	     .stall_ms = STALL_SECONDS * MSEC_PER_SEC),
	/* Called in the same critical section in Rust, to fill the holes. */
	HOOK(xas_fill_empty, "xas_fill_empty", .never_fails = true, .never_parks = true,
	     .stall_ms = STALL_SECONDS * MSEC_PER_SEC),
	/* Other tasks spin on the page table lock during a stall, maybe on all other CPUs. */
	HOOK(folio_remove_rmap_ptes, "folio_remove_rmap_ptes", .never_fails = true,
	     .never_parks = true, .stall_ms = 300),
#ifdef CONFIG_RUST_COLLAPSE_FILE
	HOOK(retract_page_tables, "retract_page_tables", .never_fails = true),
#endif
#ifdef CONFIG_BLOCK
	HOOK(submit_bio, "submit_bio"),
#endif
	HOOK(reclaim_pages, "reclaim_pages", .never_fails = true),
};

static void let_go(struct hook *hook)
{
	if (!READ_ONCE(hook->parked))
		return;
	WRITE_ONCE(hook->go, true);
	wake_up_all(&hooks_wait);
}

static void disarm(struct hook *hook)
{
	if (!hook->armed)
		return;
	hook->armed = false;
	unregister_kprobe(&hook->kp);
	while (READ_ONCE(hook->inside)) {
		let_go(hook);
		schedule_timeout_uninterruptible(1);
	}
	put_task_struct(hook->task);
	hook->task = NULL;
	if (hook->with)
		disarm(hook->with);
}

static bool allowed(const struct hook *hook, enum action action)
{
	if (action == STALL)
		return hook->stall_ms;
	return action == FAIL ? !hook->never_fails : !hook->never_parks;
}

static int arm(struct hook *hook, enum action action, unsigned int first, unsigned int count,
	       pid_t tid)
{
	int err;

	if (!allowed(hook, action) || !first)
		return -EINVAL;
	disarm(hook);
	rcu_read_lock();
	hook->task = tid ? find_task_by_pid_ns(tid, &init_pid_ns) : current;
	if (hook->task)
		get_task_struct(hook->task);
	rcu_read_unlock();
	if (!hook->task)
		return -ESRCH;
	hook->action = action;
	hook->first = first;
	hook->count = count;
	hook->calls = 0;
	hook->go = false;
	/* Clear the fields that an earlier registration has set. */
	hook->kp.addr = NULL;
	hook->kp.flags = 0;
	err = register_kprobe(&hook->kp);
	if (err) {
		put_task_struct(hook->task);
		return err;
	}
	hook->armed = true;
	if (hook->with)
		err = arm(hook->with, action, 1, UINT_MAX, tid);
	if (err)
		disarm(hook);
	return err;
}

static int obey(const char *line)
{
	static const char * const actions[] = {
		[FAIL] = "fail", [PARK] = "park", [PARK_AFTER] = "park-after",
		[STALL] = "stall",
	};
	unsigned int first = 1, count = 1;
	char function[32] = "", word[16] = "";
	struct hook *hook = NULL;
	int tid = 0, words, i;

	words = sscanf(line, "%31s %15s %u %u %d", function, word, &first, &count, &tid);
	if (words < 1 || !*function)
		return -EINVAL;
	if (words == 1 && !strcmp(function, "off")) {
		for (i = 0; i < NR_HOOKS; i++)
			disarm(&hooks[i]);
		return 0;
	}
	for (i = 0; i < NR_HOOKS && !hook; i++)
		if (hooks[i].stand_in && !strcmp(hooks[i].kp.symbol_name, function))
			hook = &hooks[i];
	if (!hook)
		return -ENOENT;
	if (!strcmp(word, "go")) {
		let_go(hook);
		return 0;
	}
	if (!strcmp(word, "off")) {
		disarm(hook);
		return 0;
	}
	i = match_string(actions, ARRAY_SIZE(actions), word);
	return i < 0 ? i : arm(hook, i, first, count, tid);
}

static ssize_t inject_write(struct file *file, const char __user *buffer, size_t len,
			    loff_t *pos)
{
	char *line;
	int err;

	if (len > 128)
		return -EINVAL;
	line = memdup_user_nul(buffer, len);
	if (IS_ERR(line))
		return PTR_ERR(line);
	mutex_lock(&hooks_lock);
	err = obey(line);
	mutex_unlock(&hooks_lock);
	kfree(line);
	return err ?: len;
}

static int inject_show(struct seq_file *m, void *v)
{
	for (int i = 0; i < NR_HOOKS; i++) {
		struct hook *hook = &hooks[i];

		if (hook->stand_in)
			seq_printf(m, "%s %s %u\n", hook->kp.symbol_name,
				   READ_ONCE(hook->parked) ? "parked" :
				   READ_ONCE(hook->armed) ? "armed" : "off",
				   READ_ONCE(hook->calls));
	}
	return 0;
}

static int inject_open(struct inode *inode, struct file *file)
{
	return single_open(file, inject_show, NULL);
}

static const struct file_operations inject_fops = {
	.owner = THIS_MODULE,
	.open = inject_open,
	.read = seq_read,
	.write = inject_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int __init inject_init(void)
{
	debugfs_create_file("collapse_file_inject", 0600, NULL, NULL, &inject_fops);
	return 0;
}
late_initcall(inject_init);
