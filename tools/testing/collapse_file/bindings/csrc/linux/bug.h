/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _SIM_BUG_H
#define _SIM_BUG_H

#include <stdbool.h>

void sim_bug(const char *what, int line);

#define BUG_ON(cond)	do { if (cond) sim_bug(#cond, __LINE__); } while (0)
#define WARN_ON(cond)	({ bool _warn = (cond); if (_warn) sim_bug(#cond, __LINE__); _warn; })
#define WARN_ON_ONCE(cond)	WARN_ON(cond)
#define pr_info(...)	do { } while (0)
#define pr_cont(...)	do { } while (0)

#endif /* _SIM_BUG_H */
