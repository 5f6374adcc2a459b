-- Health of a ModelDeployment in Argo CD. Without a script of its own Argo CD calls every custom resource healthy.
-- Argo CD has no string library: keep to tables and comparisons.
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not seen this spec yet" }
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function holds(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local function is(health, type)
  local condition = conditions[type] or {}
  local message = condition.reason or ""
  if condition.message ~= nil and condition.message ~= "" then
    message = message .. ": " .. condition.message
  end
  return { status = health, message = message }
end

-- A person is waited for, also where that is because the judge came to no verdict.
local stalled = conditions["Stalled"]
if holds("Paused") and (not holds("Stalled") or stalled.reason == "HoldExceeded") then
  return is("Suspended", "Paused")
end
-- Nothing goes on by itself: what is in Git is not what serves, or cannot be acted on.
if holds("Stalled") then
  return is("Degraded", "Stalled")
end
-- Nobody answers, and it is not that the first version is still coming up.
local ready, reconciling = conditions["Ready"], conditions["Reconciling"]
if ready ~= nil and ready.status == "False" and (reconciling == nil or reconciling.reason ~= "Initializing") then
  return is("Degraded", "Ready")
end
if holds("Reconciling") then
  return is("Progressing", "Reconciling")
end
-- A host or a model name that is in Git leads to another ModelDeployment.
if holds("Conflicted") then
  return is("Degraded", "Conflicted")
end
if holds("Ready") then
  return is("Healthy", "Ready")
end
return is("Degraded", "Ready")
