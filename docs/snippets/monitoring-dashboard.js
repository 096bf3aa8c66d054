// Real-time server status monitoring
class ServerMonitor {
  constructor(apiKey) {
    this.apiKey = apiKey;
    this.servers = new Map();
  }

  async start() {
    // Initial load
    const servers = await this.fetchServers();
    servers.forEach(s => this.servers.set(s.uuid, s));

    // Subscribe to updates
    this.subscribeToUpdates();

    // Periodic health checks
    setInterval(() => this.healthCheck(), 30000);
  }

  subscribeToUpdates() {
    const eventSource = new EventSource(
      `https://plugged.in/api/events?token=${this.apiKey}`
    );

    eventSource.onmessage = (event) => {
      const update = JSON.parse(event.data);
      this.handleUpdate(update);
    };
  }

  async healthCheck() {
    for (const [uuid, server] of this.servers) {
      const health = await this.checkServerHealth(uuid);
      this.updateServerStatus(uuid, health);
    }
  }
}
