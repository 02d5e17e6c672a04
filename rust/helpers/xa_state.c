// SPDX-License-Identifier: GPL-2.0

#include <linux/xarray.h>

__rust_helper void rust_helper_xas_init_order(struct xa_state *xas, struct xarray *xa,
					      unsigned long index, unsigned int order)
{
	XA_STATE_ORDER(init, xa, index, order);

	*xas = init;
}

__rust_helper int rust_helper_xas_error(const struct xa_state *xas)
{
	return xas_error(xas);
}

__rust_helper void rust_helper_xas_reset(struct xa_state *xas)
{
	xas_reset(xas);
}

__rust_helper void rust_helper_xas_set(struct xa_state *xas, unsigned long index)
{
	xas_set(xas, index);
}

__rust_helper void rust_helper_xas_set_order(struct xa_state *xas, unsigned long index,
					     unsigned int order)
{
	xas_set_order(xas, index, order);
}

/* Returns whether the cursor is at the slot of its index, and not at the slot of a larger entry. */
__rust_helper bool rust_helper_xas_is_at_slot(const struct xa_state *xas)
{
	return xas_is_node(xas) &&
	       xas->xa_offset == ((xas->xa_index >> xas->xa_node->shift) & XA_CHUNK_MASK);
}

__rust_helper void *rust_helper_xas_next(struct xa_state *xas)
{
	return xas_next(xas);
}

__rust_helper bool rust_helper_xa_is_value(const void *entry)
{
	return xa_is_value(entry);
}

__rust_helper unsigned long rust_helper_xa_to_value(const void *entry)
{
	return xa_to_value(entry);
}

__rust_helper bool rust_helper_xa_is_internal(const void *entry)
{
	return xa_is_internal(entry);
}

__rust_helper bool rust_helper_xa_is_retry(const void *entry)
{
	return xa_is_retry(entry);
}

__rust_helper void *rust_helper_xa_retry_entry(void)
{
	return XA_RETRY_ENTRY;
}

#if IS_ENABLED(CONFIG_RUST_COLLAPSE_FILE_KUNIT_TEST) || !defined(CONFIG_SMP)
__rust_helper bool rust_helper_irqs_disabled(void)
{
	return irqs_disabled();
}
#endif
