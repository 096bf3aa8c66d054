}

console.log(JSON.stringify({ data: await create(JSON.parse(process.env.SERVER_CONFIG)) ?? null }));
