/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Spin locks of the simulation. The page cache uses the _irq variant. The
 * others are here because lib/xarray.c needs them. sim_lock() reports their use.
 */
#ifndef _SIM_SPINLOCK_H
#define _SIM_SPINLOCK_H

#include <stdbool.h>

typedef struct {
	unsigned int unused;
} spinlock_t;

void sim_lock(spinlock_t *lock, bool irq);
void sim_unlock(spinlock_t *lock, bool irq);
bool sim_lock_is_held(const spinlock_t *lock);

#define spin_lock_init(lock)		do { (lock)->unused = 0; } while (0)
#define spin_trylock(lock)		(sim_lock(lock, false), true)
#define spin_lock(lock)			sim_lock(lock, false)
#define spin_unlock(lock)		sim_unlock(lock, false)
#define spin_lock_bh(lock)		sim_lock(lock, false)
#define spin_unlock_bh(lock)		sim_unlock(lock, false)
#define spin_lock_irq(lock)		sim_lock(lock, true)
#define spin_unlock_irq(lock)		sim_unlock(lock, true)
#define spin_lock_irqsave(lock, flags)	do { (void)(flags); sim_lock(lock, true); } while (0)
#define spin_unlock_irqrestore(lock, flags) do { (void)(flags); sim_unlock(lock, true); } while (0)
#define spin_lock_nested(lock, class)	spin_lock(lock)
#define spin_lock_bh_nested(lock, class) spin_lock_bh(lock)
#define spin_lock_irq_nested(lock, class) spin_lock_irq(lock)
#define spin_lock_irqsave_nested(lock, flags, class) spin_lock_irqsave(lock, flags)

#define __SPIN_LOCK_UNLOCKED(name)	{ 0 }

#endif /* _SIM_SPINLOCK_H */
