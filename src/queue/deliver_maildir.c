/* deliver_maildir.c - delivery into maildirs (the maildir convention: write in tmp,
 * fsync, rename to new). One file per recipient; the path is a template over the
 * message. File work runs on an offload thread. Directories are fsynced too, so that
 * a delivered message survives power loss, of which the spool's copy is then removed. */
#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"
#include "mime/envelope.h"
#include "queue/queue_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static _Atomic uint64_t maildir_counter;

static void context_set_str(json_t *ctx, const char *key, str_t s)
{
	if (s.p == NULL)
		json_object_set_new(ctx, key, json_null());
	else
		json_object_set_new(ctx, key, json_stringn_nocheck(s.p, s.n));
}

/** A part of an address, which anybody may choose: a slash in it would lead into another directory, so it is
 * written as %2F. */
static void context_set_address(json_t *ctx, const char *key, str_t s)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '/')
			buf_add_z(&b, "%2F");
		else
			buf_add_c(&b, s.p[i]);
	}
	context_set_str(ctx, key, b.n > 0 ? buf_str(&b) : STR(""));
	buf_fini(&b);
}

/** The documented names of the maildir_path template. */
static json_t *maildir_context(const struct sched_queue *q, const struct message *m, str_t rcpt)
{
	json_t *ctx = json_object();
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	struct mailbox box = {0};
	meta_write(&m->meta, &j);
	json_t *meta = json_loadb(b.p, b.n, 0, NULL);
	json_object_set_new(ctx, "meta", meta != NULL ? meta : json_object());
	buf_fini(&b);
	context_set_str(ctx, "queue", str_of(q->name));
	context_set_str(ctx, "campaign", q->part.campaign);
	context_set_str(ctx, "tenant", q->part.tenant);
	context_set_str(ctx, "domain", q->part.domain);
	context_set_str(ctx, "routing_domain", q->part.routing_domain);
	if (mailbox_parse(rcpt, &box) != 0)
		err_clear();
	context_set_address(ctx, "local_part", box.local);
	context_set_address(ctx, "domain_part", box.domain);
	context_set_address(ctx, "email", rcpt);
	box = (struct mailbox){0};
	if (mailbox_parse(str_of(m->sender), &box) != 0)
		err_clear();
	context_set_address(ctx, "sender_local_part", box.local);
	context_set_address(ctx, "sender_domain_part", box.domain);
	context_set_address(ctx, "sender_email", str_of(m->sender));
	return ctx;
}

/** The rendered path. An address may not climb out of the directory it is put in: a component that comes out
 * as ".." is refused. */
static char *maildir_render_path(const struct template *t, const struct sched_queue *q,
				 const struct message *m, str_t rcpt)
{
	struct buf out = BUF_INIT;
	json_t *ctx = maildir_context(q, m, rcpt);
	int rc = template_render(t, ctx, &out);
	json_decref(ctx);
	if (rc == 0) {
		str_t rest = buf_str(&out), part;
		if (rest.n == 0 || memchr(rest.p, 0, rest.n) != NULL)
			rc = -1;
		while (rc == 0 && str_split(&rest, '/', &part))
			if (str_eq(part, STR("..")))
				rc = -1;
		if (rc != 0)
			err_set(ERR_INVALID, "maildir_path: `" STR_FMT "` is no usable path",
				STR_ARG(buf_str(&out)));
	}
	if (rc != 0) {
		buf_fini(&out);
		return NULL;
	}
	return buf_steal(&out, NULL);
}

struct maildir_write {
	const struct message *m;
	const char *dir;
	int dir_mode, file_mode;
	char *final_name; /* out: the file's name in new/ */
};

static int maildir_mkdir(const char *path, int mode)
{
	if (mkdir(path, 0777) == 0) {
		if (mode >= 0 && chmod(path, (mode_t)mode) != 0) {
			err_set_sys(errno, "chmod %s", path);
			return -1;
		}
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	err_set_sys(errno, "mkdir %s", path);
	return -1;
}

/** Makes dir with its parents, and cur, new, tmp in it. */
static int maildir_make(const char *dir, int mode)
{
	static const char *const sub[] = {"", "/cur", "/new", "/tmp"};
	struct stat st;
	char *path = xasprintf("%s/tmp", dir);
	int rc = -1;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) { /* the usual case: it was made before */
		rc = 0;
		goto out;
	}
	for (char *p = path + 1; *p != 0; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		rc = maildir_mkdir(path, mode);
		*p = '/';
		if (rc != 0)
			goto out;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sub); i++) {
		free(path);
		path = xasprintf("%s%s", dir, sub[i]);
		rc = maildir_mkdir(path, mode);
		if (rc != 0)
			goto out;
	}
out:
	free(path);
	return rc;
}

static int maildir_write_all(int fd, const char *p, size_t n, const char *path)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			err_set_sys(errno, "writing %s", path);
			return -1;
		}
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

/** A file system that cannot sync directories does what it can without. */
static int maildir_sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd >= 0 ? fsync(fd) : -1;
	if (rc != 0 && fd >= 0 && (errno == EINVAL || errno == ENOTSUP || errno == ENOSYS))
		rc = 0;
	if (rc != 0)
		err_set_sys(errno, "syncing %s", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

/** On an offload thread. */
static int maildir_write_file(void *arg)
{
	struct maildir_write *w = arg;
	int rc = -1, fd = -1;
	char *tmp = NULL, *final = NULL, *name = NULL;
	struct stat st;

	if (maildir_make(w->dir, w->dir_mode) != 0)
		goto out;
	for (int tries = 0; fd < 0; tries++) {
		int64_t now = wall_now().ns;
		free(name);
		free(tmp);
		name = xasprintf("%lld.#%llxM%lldP%d", (long long)(now / NS_PER_S),
				 (unsigned long long)maildir_counter++, (long long)(now % NS_PER_S),
				 (int)getpid());
		tmp = xasprintf("%s/tmp/%s.%s", w->dir, name, queue_g.hostname);
		fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0 && (errno != EEXIST || tries == 10)) {
			err_set_sys(errno, "creating %s", tmp);
			goto out;
		}
	}
	if ((w->m->n_prefix_bytes > 0 &&
	     maildir_write_all(fd, w->m->prefix, w->m->n_prefix_bytes, tmp) != 0) ||
	    maildir_write_all(fd, w->m->body->p, w->m->body->n_bytes, tmp) != 0)
		goto fail;
	if ((w->file_mode >= 0 && fchmod(fd, (mode_t)w->file_mode) != 0) || fsync(fd) != 0 ||
	    fstat(fd, &st) != 0) {
		err_set_sys(errno, "writing %s", tmp);
		goto fail;
	}
	w->final_name = xasprintf("%sV%lluI%llu.%s,S=%u", name, (unsigned long long)st.st_dev,
				  (unsigned long long)st.st_ino, queue_g.hostname, w->m->size_bytes);
	final = xasprintf("%s/new/%s", w->dir, w->final_name);
	if (rename(tmp, final) != 0) {
		err_set_sys(errno, "renaming %s to %s", tmp, final);
		goto fail;
	}
	free(tmp);
	tmp = xasprintf("%s/new", w->dir);
	rc = maildir_sync_dir(tmp);
	if (rc != 0)
		unlink(final); /* it is reported as failed and comes again */
	goto out;
fail:
	unlink(tmp);
out:
	if (fd >= 0)
		close(fd);
	if (rc != 0) {
		free(w->final_name);
		w->final_name = NULL;
	}
	free(tmp);
	free(final);
	free(name);
	return rc;
}

/** One recipient: appends what the record says of it to ok or to failed. */
static int maildir_deliver_one(struct sched_queue *q, struct message *m, const struct queue_config *cfg,
			       const struct template *t, const char *rcpt, struct buf *ok, struct buf *failed)
{
	struct maildir_write w = {
		.m = m, .dir_mode = cfg->protocol.dir_mode, .file_mode = cfg->protocol.file_mode};
	char *dir = maildir_render_path(t, q, m, str_of(rcpt));
	w.dir = dir;
	int rc = dir != NULL ? offload_run(maildir_write_file, &w, MONO_NEVER) : -1;
	struct buf *out = rc == 0 ? ok : failed;
	if (out->n > 0)
		buf_add_z(out, ", ");
	if (rc == 0) {
		buf_printf(out, "%s: wrote to maildir with id=%s", rcpt, w.final_name);
	} else {
		buf_printf(out, "%s: failed to write to maildir: %s", rcpt, err_text());
		err_clear();
	}
	free(w.final_name);
	free(dir);
	return rc;
}

void maildir_deliver(struct sched_queue *q, struct message *m, const struct queue_config *cfg,
		     const struct template *path)
{
	struct uuid session = uuid_new_v4();
	struct buf ok_text = BUF_INIT, failed_text = BUF_INIT;
	struct smtp_response ok = {.code = 200}, failed = {.code = 400};
	struct outcome o = {
		.q = q, .protocol_name = "Maildir", .provider = cfg->provider_name, .session_id = &session};
	const struct smtp_response **by_rcpt = xcalloc(m->n_rcpt + 1, sizeof(*by_rcpt));

	if (m->body == NULL && spool_load_body(queue_g.spool, m, MONO_NEVER) != 0) {
		buf_printf(&failed_text, "failed to read the message from the spool: %s", err_text());
		err_clear();
		for (uint32_t i = 0; i < m->n_rcpt; i++)
			by_rcpt[i] = &failed;
	} else {
		for (uint32_t i = 0; i < m->n_rcpt; i++)
			by_rcpt[i] =
				maildir_deliver_one(q, m, cfg, path, m->rcpt[i], &ok_text, &failed_text) == 0
					? &ok
					: &failed;
	}
	ok.content = buf_str(&ok_text);
	failed.content = buf_str(&failed_text);
	outcome_apply(&o, m, by_rcpt, NULL);
	free(by_rcpt);
	buf_fini(&ok_text);
	buf_fini(&failed_text);
}
