/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _SIM_SCHED_MM_H
#define _SIM_SCHED_MM_H

#include <linux/gfp.h>

void sim_might_alloc(bool may_sleep);

#define might_alloc(gfp)	sim_might_alloc(gfpflags_allow_blocking(gfp))

#endif /* _SIM_SCHED_MM_H */
