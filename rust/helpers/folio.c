// SPDX-License-Identifier: GPL-2.0

#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/lockdep.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/vmstat.h>

#include "../../mm/internal.h"

__rust_helper void rust_helper_folio_get(struct folio *folio)
{
	folio_get(folio);
}

__rust_helper void rust_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

__rust_helper void rust_helper_folio_ref_add(struct folio *folio, int refs)
{
	folio_ref_add(folio, refs);
}

__rust_helper void rust_helper_folio_ref_sub(struct folio *folio, int refs)
{
	folio_ref_sub(folio, refs);
}

__rust_helper int rust_helper_folio_ref_count(const struct folio *folio)
{
	return folio_ref_count(folio);
}

__rust_helper bool rust_helper_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

__rust_helper void rust_helper___folio_set_locked(struct folio *folio)
{
	__folio_set_locked(folio);
}

__rust_helper void rust_helper___folio_set_swapbacked(struct folio *folio)
{
	__folio_set_swapbacked(folio);
}

__rust_helper bool rust_helper_folio_test_locked(const struct folio *folio)
{
	return folio_test_locked(folio);
}

__rust_helper bool rust_helper_folio_test_waiters(const struct folio *folio)
{
	return folio_test_waiters(folio);
}

__rust_helper bool rust_helper_folio_test_lru(const struct folio *folio)
{
	return folio_test_lru(folio);
}

__rust_helper int rust_helper_folio_has_private(const struct folio *folio)
{
	return folio_has_private(folio);
}

__rust_helper bool rust_helper_folio_test_uptodate(const struct folio *folio)
{
	return folio_test_uptodate(folio);
}

__rust_helper bool rust_helper_folio_test_dirty(const struct folio *folio)
{
	return folio_test_dirty(folio);
}

__rust_helper bool rust_helper_folio_test_writeback(const struct folio *folio)
{
	return folio_test_writeback(folio);
}

__rust_helper void rust_helper_folio_mark_uptodate(struct folio *folio)
{
	folio_mark_uptodate(folio);
}

/* Tests are cheaper than atomic operations, and the flags are seldom set. */
__rust_helper void rust_helper_folio_clear_active(struct folio *folio)
{
	if (folio_test_active(folio))
		folio_clear_active(folio);
}

__rust_helper void rust_helper_folio_clear_unevictable(struct folio *folio)
{
	if (folio_test_unevictable(folio))
		folio_clear_unevictable(folio);
}

__rust_helper bool rust_helper_folio_same_lruvec(const struct folio *a, const struct folio *b)
{
#ifdef CONFIG_MEMCG
	if (a->memcg_data != b->memcg_data)
		return false;
#endif
	return folio_pgdat(a) == folio_pgdat(b);
}

__rust_helper void rust_helper_folio_batch_init(struct folio_batch *batch)
{
	folio_batch_init(batch);
}

__rust_helper unsigned int rust_helper_folio_batch_add(struct folio_batch *batch,
						       struct folio *folio)
{
	return folio_batch_add(batch, folio);
}

__rust_helper bool rust_helper_folio_mapping_is(const struct folio *folio,
						const struct address_space *mapping)
{
	return folio->mapping == mapping;
}

__rust_helper unsigned int rust_helper_folio_order(const struct folio *folio)
{
	return folio_order(folio);
}

__rust_helper unsigned long rust_helper_folio_nr_pages(const struct folio *folio)
{
	return folio_nr_pages(folio);
}

__rust_helper unsigned long rust_helper_folio_pfn(const struct folio *folio)
{
	return folio_pfn(folio);
}

__rust_helper struct page *rust_helper_folio_page(struct folio *folio, unsigned long n)
{
	return folio_page(folio, n);
}

__rust_helper bool rust_helper_folio_mapped(const struct folio *folio)
{
	return folio_mapped(folio);
}

__rust_helper pgoff_t rust_helper_folio_index(const struct folio *folio)
{
	return folio->index;
}

__rust_helper void rust_helper_folio_set_mapping(struct folio *folio,
						 struct address_space *mapping, pgoff_t index)
{
	folio->index = index;
	folio->mapping = mapping;
}

__rust_helper void rust_helper_folio_clear_mapping(struct folio *folio)
{
	folio->mapping = NULL;
}

__rust_helper bool rust_helper_folio_test_clear_lru(struct folio *folio)
{
	return folio_test_clear_lru(folio);
}

__rust_helper bool rust_helper_folio_matches_lruvec(struct folio *folio, struct lruvec *lruvec)
{
	return folio_matches_lruvec(folio, lruvec);
}

#ifndef CONFIG_MEMCG
__rust_helper struct lruvec *
rust_helper_folio_lruvec_lock_irqsave(struct folio *folio, unsigned long *flags)
{
	return folio_lruvec_lock_irqsave(folio, flags);
}
#endif

__rust_helper void rust_helper_lruvec_unlock_irqrestore(struct lruvec *lruvec,
							unsigned long flags)
{
	lruvec_unlock_irqrestore(lruvec, flags);
}

__rust_helper enum lru_list rust_helper_folio_lru_list(const struct folio *folio)
{
	return folio_lru_list(folio);
}

__rust_helper enum zone_type rust_helper_folio_zonenum(const struct folio *folio)
{
	return folio_zonenum(folio);
}

__rust_helper bool rust_helper_lru_gen_del_folio(struct lruvec *lruvec, struct folio *folio,
						 bool reclaiming)
{
	return lru_gen_del_folio(lruvec, folio, reclaiming);
}

__rust_helper void rust_helper_update_lru_size(struct lruvec *lruvec, enum lru_list lru,
					       enum zone_type zid, long nr_pages)
{
	update_lru_size(lruvec, lru, zid, nr_pages);
}

__rust_helper struct list_head *rust_helper_folio_lru(struct folio *folio)
{
	return &folio->lru;
}

__rust_helper struct folio *rust_helper_lru_folio(struct list_head *lru)
{
	return list_entry(lru, struct folio, lru);
}

__rust_helper void rust_helper___list_del_entry(struct list_head *entry)
{
	__list_del_entry(entry);
}

__rust_helper void rust_helper_list_del(struct list_head *entry)
{
	list_del(entry);
}

__rust_helper void rust_helper_lockdep_assert_irqs_enabled(void)
{
	lockdep_assert_irqs_enabled();
}

__rust_helper void rust_helper_clear_highpage(struct page *page)
{
	clear_highpage(page);
}

__rust_helper int rust_helper_copy_mc_highpage(struct page *to, struct page *from)
{
	return copy_mc_highpage(to, from);
}

#ifndef CONFIG_MEMCG
__rust_helper void rust_helper_lruvec_stat_mod_folio(struct folio *folio,
						     enum node_stat_item idx, int val)
{
	lruvec_stat_mod_folio(folio, idx, val);
}
#endif

#ifndef CONFIG_ARCH_WANT_BATCHED_UNMAP_TLB_FLUSH
__rust_helper void rust_helper_try_to_unmap_flush(void)
{
	try_to_unmap_flush();
}
#endif
