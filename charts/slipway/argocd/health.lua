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

for _, condition in pairs(conditions) do
  if condition.reason == "InvalidSpec" then
    return is("Degraded", condition.type)
  end
end
-- What is in Git is not what serves.
if holds("RolledBack") then
  return is("Degraded", "RolledBack")
end
-- Nobody answers, and it is not that the first version is still coming up.
local available, progressing = conditions["Available"], conditions["Progressing"]
if available ~= nil and available.status == "False" and (progressing == nil or progressing.reason ~= "Initializing") then
  return is("Degraded", "Available")
end
if holds("Paused") then
  return is("Suspended", "Paused")
end
if holds("Progressing") then
  return is("Progressing", "Progressing")
end
-- A host or a model name that is in Git leads to another ModelDeployment.
if holds("Conflicted") then
  return is("Degraded", "Conflicted")
end
if holds("Ready") then
  return is("Healthy", "Ready")
end
return is("Degraded", "Ready")
