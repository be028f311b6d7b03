-- listener_domains.lua - a handler of get_listener_domain made of files: which domains take mail from whom, and which have
-- reports logged. The files are read, and every entry is checked, when a Lua state is made; a file that has changed
-- counts for the states made since.
--
-- An entry is named by a domain, by `*.parent` for all domains below parent that have none of their own, or by `*` for all others.
-- Those in [listener."ADDRESS:PORT"] count for one listener, and come first there.
local kumo = require 'kumo'

local mod = {}

local function load(file)
  if type(file) == 'table' then
    return file, 'a table'
  end
  if file:match '%.json$' then
    return kumo.serde.json_load(file), file
  end
  return kumo.serde.toml_load(file), file
end

local function check_table(value, name, where)
  if type(value) ~= 'table' then
    error(string.format('listener_domains: %s: `%s` is no table', where, name), 0)
  end
end

local function add_domains(into, domains, where)
  for name, params in pairs(domains) do
    check_table(params, name, where)
    local ok, made = pcall(kumo.make_listener_domain, params)
    if not ok then
      error(string.format('listener_domains: %s: domain `%s`: %s', where, name, made), 0)
    end
    into[name:lower()] = made
  end
end

-- By listener, then by domain; what holds for all listeners is that of `*`.
local function add_file(by_listener, file)
  local content, where = load(file)
  local everywhere = {}
  for name, value in pairs(content) do
    if name == 'listener' then
      check_table(value, name, where)
      for listener, domains in pairs(value) do
        check_table(domains, listener, where)
        by_listener[listener] = by_listener[listener] or {}
        add_domains(by_listener[listener], domains, string.format('%s: listener `%s`', where, listener))
      end
    else
      everywhere[name] = value
    end
  end
  add_domains(by_listener['*'], everywhere, where)
end

local function find(domains, domain)
  local found = domains[domain]
  while not found do
    domain = domain:match '^[^.]*%.(.+)$'
    if not domain then
      return nil
    end
    found = domains['*.' .. domain]
  end
  return found
end

-- Returns the handler. files: names of TOML or JSON files, or tables; of two entries for a domain the later counts.
function mod:setup(files)
  check_table(files, 'files', 'setup')
  if mod.is_configured then
    error('listener_domains module has already been configured', 2)
  end
  local by_listener = { ['*'] = {} }
  for _, file in ipairs(files) do
    add_file(by_listener, file)
  end
  mod.is_configured = true
  local everywhere, nothing = by_listener['*'], {}
  return function(domain, listener)
    local here = by_listener[listener] or nothing
    return find(here, domain) or find(everywhere, domain) or here['*'] or everywhere['*']
  end
end

return mod
