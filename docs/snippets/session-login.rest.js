console.log(JSON.stringify({ login: response.status, status: servers.status, body: await servers.json() }));
