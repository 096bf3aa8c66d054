"""Two hubs on one database: a file that one takes, the other has."""

import anyio
import pytest

from tests.documents.making import found, upload
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("documents.upload", "documents.mcp")
async def test_a_file_that_came_in_at_one_hub_is_at_the_other(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with (
        serving(postgres_url, tmp_path_factory.mktemp("one")) as one,
        serving(postgres_url, tmp_path_factory.mktemp("other"), secrets=one.secrets, clock=one.clock) as other,
    ):
        other.key = one.key
        listing = {"path": "/mcp", "key": one.key}
        assert "search_documents" not in (await other.rpc("tools/list", **listing)).text  # type: ignore[arg-type]
        data = b"A long story. " * 100_000
        made = (await upload(one, "story.txt", data)).json()
        back = await other.call("GET", f"/api/documents/{made['id']}/download")
        assert back.content == data
        assert [each["id"] for each in await found(other, "story")] == [made["id"]]
        with anyio.fail_after(5):
            while "search_documents" not in (await other.rpc("tools/list", **listing)).text:  # type: ignore[arg-type]
                pass
