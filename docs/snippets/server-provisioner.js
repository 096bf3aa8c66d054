// Automated server provisioning
class ServerProvisioner {
  async provisionForUser(userId, template) {
    // Create project
    const project = await this.createProject(userId);

    // Install servers from template
    for (const serverConfig of template.servers) {
      await this.installServer(project.uuid, serverConfig);
    }

    // Configure integrations
    await this.setupIntegrations(project.uuid, template.integrations);

    // Send notification
    await this.notifyUser(userId, project);

    return project;
  }
}
