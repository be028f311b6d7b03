/* queue_service.h - the queues as a service for tests: a directory with a policy and a spool, workers, a
 * deliverer; up and down as often as a test likes, with what is in the spool staying there. */
#pragma once

#include "fiber_check.h"
#include "test_dir.h"

#include "base/alloc.h"
#include "bind/bind.h"
#include "bind/bind_inject_message.h"
#include "bind/bind_queue.h"
#include "fiber/offload.h"
#include "policy/policy.h"
#include "queue/deliverer.h"
#include "queue/queue.h"

#include <sys/stat.h>
#include <unistd.h>

#define SERVICE_WORKERS 2

static struct {
	char dir[64];
	const struct deliverer *deliverer;
	size_t body_budget_bytes; /* 0: the usual */
	struct spool *spool;	  /* while it is up */
} service;

/** Once, before the first policy. */
static inline void service_register(void)
{
	bind_register_core();
	bind_register_inject_message();
	bind_register_queue();
}

static inline int service_load_body(struct message *m, mono_t deadline)
{
	return spool_load_body(service.spool, m, deadline);
}
static inline int service_load_meta(struct message *m, mono_t deadline)
{
	return spool_load_meta(service.spool, m, deadline);
}

static inline int service_save(struct message *m, mono_t deadline)
{
	return spool_save(service.spool, m, deadline);
}
static inline const char *service_takes_mail(void)
{
	return NULL;
}

static inline void service_make_dir(void)
{
	static int n;
	snprintf(service.dir, sizeof(service.dir), "/tmp/cirrus-queue-%d-%d", (int)getpid(), n++);
	CHECK(mkdir(service.dir, 0755) == 0);
}

static inline void service_remove_dir(void)
{
	dir_remove(service.dir);
}

/** Lua: the table of make_queue_config; statements of the handler before make_egress_path, and its table;
 * further handlers. */
static inline void service_write_policy(const char *queue, const char *path_code, const char *path,
					const char *extra)
{
	char *text = xasprintf(
		"local kumo = require 'kumo'\n"
		"kumo.on('get_queue_config', function(domain) return kumo.make_queue_config { %s } end)\n"
		"kumo.on('get_egress_path_config', function(domain, source, site) %s return "
		"kumo.make_egress_path { %s } end)\n%s\n",
		queue, path_code, path, extra);
	dir_write(service.dir, "policy.lua", text);
	free(text);
}

static inline void service_up(void *arg)
{
	const bool *is_recovering = arg;
	char *file = xasprintf("%s/policy.lua", service.dir), *path = xasprintf("%s/spool", service.dir);
	struct policy_params p = {.file = file, .version = "test"};
	CHECK(policy_start(&p) == 0);
	service.spool = spool_open_journal(
		&(struct spool_params){.name = STR("test"), .path = str_of(path), .is_flushed = false});
	CHECK(service.spool != NULL);
	queue_set_smtp_deliverer(service.deliverer);
	queue_start(&(struct queue_params){.spool = service.spool,
					   .hostname = "test.example.com",
					   .body_budget_bytes = service.body_budget_bytes});
	bind_message_set_loader(service_load_body);
	bind_message_set_saver(service_save);
	policy_set_meta_loader(service_load_meta);
	bind_inject_message_set_gate(service_takes_mail);
	if (*is_recovering)
		CHECK(queue_recover(MONO_NEVER) == 0);
	free(file);
	free(path);
}

static inline void service_begin(bool is_recovering)
{
	workers_start(SERVICE_WORKERS);
	offload_start(4);
	worker_run(service_up, &is_recovering);
}

static inline void service_stop_queues(void *arg)
{
	const dur_t *patience = arg;
	queue_stop(mono_after(*patience));
}

/** patience: how long sessions may finish what they have in hand. */
static inline void service_end(dur_t patience)
{
	bind_inject_message_set_gate(NULL);
	worker_run(service_stop_queues, &patience);
	workers_stop(mono_after(dur_s(20)));
	policy_stop();
	queue_free();
	spool_close(service.spool);
	offload_stop();
}

/** A message as the spool has it. */
struct service_message {
	struct uuid id;
	uint32_t n_attempts, n_rcpt;
	char rcpt[64]; /* the first */
	wall_t due;
};

static inline void service_load_message(void *arg)
{
	struct service_message *l = arg;
	struct message *m = spool_load(service.spool, &l->id, MONO_NEVER);
	CHECK(m != NULL);
	l->n_attempts = m->n_attempts;
	l->n_rcpt = m->n_rcpt;
	l->due = m->due;
	snprintf(l->rcpt, sizeof(l->rcpt), "%s", m->n_rcpt > 0 ? m->rcpt[0] : "");
	message_unref(m);
}

static inline struct service_message service_look_at(struct uuid id)
{
	struct service_message l = {.id = id};
	worker_run(service_load_message, &l);
	return l;
}
