-- The policy that tools/run starts cirrusd with. Mail comes in by HTTP, is stored, logged, and lands in a maildir on this
-- machine: nothing leaves it. docs/policy.md says what else a policy can say.
local kumo = require 'kumo'

-- Everything that Cirrus keeps lies below this directory.
local data = os.getenv 'CIRRUS_DATA' or '/var/lib/cirrus'

-- With less room than this on the disk no mail is taken. Where nothing is said, that is a tenth of the disk.
local reserve = 100 * 1024 * 1024

-- Once, at start: where messages are kept, what is logged, which ports are open.
kumo.on('init', function()
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool {
      name = name,
      path = data .. '/spool/' .. name,
      kind = 'Journal',
      min_free_space = reserve,
    }
  end

  kumo.configure_local_logs {
    log_dir = data .. '/logs',
    max_segment_duration = '1 minute', -- a log file is complete, and can be read, after this time
    min_free_space = reserve,
  }

  kumo.start_http_listener {
    listen = os.getenv 'CIRRUS_LISTEN' or '127.0.0.1:8000',
    trusted_hosts = { '127.0.0.1', '::1' }, -- who may post messages
  }
end)

-- Asked for each queue: how is the mail for this domain delivered?
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {
    -- Into a local maildir, whatever the domain. To send mail for real, leave `protocol` out: then it goes by SMTP to
    -- the hosts that the domain's MX records name.
    protocol = { maildir_path = data .. '/maildir' },
    retry_interval = '20 minutes', -- after the first failed attempt; each further wait is twice as long
    max_age = '7 days', -- then the message expires
  }
end)
