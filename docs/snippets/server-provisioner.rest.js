// What the sample leaves to its reader: how each step is asked for. It prints one JSON line for each: {"project"}, {"installed"},
// {"integrated"}, {"notified"}, and at the end {"done"}. A hub without integrations or notifications is not asked for them.
const base = "https://plugged.in";
const headers = { Authorization: "Bearer pk_live_abc123...", "Content-Type": "application/json" };

async function ask(method, path, body) {
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const { paths } = await ask("GET", "/api/openapi.json");
const print = line => console.log(JSON.stringify(line));

class PrintedProvisioner extends ServerProvisioner {
  async createProject(userId) {
    const project = await ask("POST", "/api/projects", { name: `Project of ${userId}` });
    print({ project });
    return project;
  }

  async installServer(projectUuid, serverConfig) {
    print({ installed: await ask("POST", "/api/registry/install", { ...serverConfig, project_uuid: projectUuid }) });
  }

  async setupIntegrations(projectUuid, integrations) {
    for (const { kind, ...integration } of integrations) {
      if (Object.keys(paths).some(path => path.startsWith("/api/integrations/"))) {
        print({ integrated: await ask("POST", `/api/integrations/${kind}`, { ...integration, project_uuid: projectUuid }) });
      }
    }
  }

  async notifyUser(userId, project) {
    if ("post" in (paths["/api/notifications"] ?? {})) {
      const text = { title: "Your project is ready", message: `${project.name} has its servers.`, severity: "INFO" };
      print({ notified: await ask("POST", "/api/notifications", text) });
    }
  }
}

const template = {
  servers: [{ server_name: "weather-server" }, { server_name: "weather-server" }],
  integrations: [{ kind: "slack", webhook_url: "https://hooks.example.com/services/T0/B0/x", channel: "#servers", events: ["server.error"] }],
};
print({ done: await new PrintedProvisioner().provisionForUser("ada", template) });
