/* privilege.c - dropping privileges in two steps. First real and effective user change, the saved one stays
 * root: that keeps the permitted capabilities, of which CAP_NET_BIND_SERVICE alone is made effective again,
 * so that `init` can bind low ports and its files belong to the user. Once the ports are bound the saved user
 * changes too; glibc does that in every thread, and the kernel then clears all capabilities of each
 * (capabilities(7), "Effect of user ID changes"). */
#include "app/privilege.h"

#include "base/err.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static uid_t target_uid;
static bool is_pending;

static int privilege_keep_bind(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	data[CAP_TO_INDEX(CAP_NET_BIND_SERVICE)].permitted = CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	data[CAP_TO_INDEX(CAP_NET_BIND_SERVICE)].effective = CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	if (syscall(SYS_capset, &head, data) != 0) {
		err_set_sys(errno, "keeping CAP_NET_BIND_SERVICE");
		return -1;
	}
	return 0;
}

int privilege_become(const char *user)
{
	struct passwd *pw = getpwnam(user);
	if (pw == NULL) {
		err_set(ERR_NOT_FOUND, "--user %s: there is no such user", user);
		return -1;
	}
	if (geteuid() != 0) {
		if (pw->pw_uid == getuid())
			return 0;
		err_set(ERR_INVALID, "--user %s: only root can become another user", user);
		return -1;
	}
	if (initgroups(user, pw->pw_gid) != 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0) {
		err_set_sys(errno, "--user %s: taking its groups", user);
		return -1;
	}
	if (pw->pw_uid == 0)
		return 0;
	/* threads inherit it, so it is for now, when there are none */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
		err_set_sys(errno, "PR_SET_NO_NEW_PRIVS");
		return -1;
	}
	if (setresuid(pw->pw_uid, pw->pw_uid, 0) != 0) {
		err_set_sys(errno, "--user %s: becoming it", user);
		return -1;
	}
	target_uid = pw->pw_uid;
	is_pending = true;
	return privilege_keep_bind();
}

int privilege_drop(void)
{
	if (!is_pending)
		return 0;
	if (setresuid(target_uid, target_uid, target_uid) != 0 || setuid(0) == 0) {
		err_set_sys(errno, "dropping privileges");
		return -1;
	}
	is_pending = false;
	return 0;
}
