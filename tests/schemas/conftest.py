"""The PRD's own example documents (§4.1 to §4.3); the e-mail addresses, scrubbed in the seed, are repaired."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from longshore.schemas.documents import DocumentKind

MODEL_CARD = """
schemaVersion: "3.0.0"
metadata:
  name: sentiment-analysis
  version: 1.2.3
  description: BERT-based sentiment classifier for customer reviews with 94% accuracy
  owner: ml-team@acme.com
  tags: [nlp, sentiment, bert, production]
  created_at: "2025-10-15T10:30:00Z"
runtime:
  framework: pytorch
  framework_version: 2.1.0
  python_version: "3.10"
  dependencies:
    - transformers==4.35.0
    - torch==2.1.0
    - numpy==1.24.0
    - sentencepiece==0.1.99
  system_packages:
    - libgomp1
artifacts:
  storage_type: s3
  model_path: s3://acme-ml-models/sentiment-analysis/v1.2.3/model.pt
  config_path: s3://acme-ml-models/sentiment-analysis/v1.2.3/config.json
  checksum: a3f5e8c9d2b1f4a7e6c8d9f0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0
  size_bytes: 438912000 # ~419 MB
code:
  repository: https://bitbucket.org/acme/sentiment-analysis-model.git
  path: src/
  ref: v1.2.3 # MUST match model version tag
  entrypoint: src.model
preprocessing:
  module: src.preprocessing
  function: tokenize_and_encode
  config:
    max_length: 512
    truncation: true
    padding: max_length
    tokenizer_name: bert-base-uncased
postprocessing:
  module: src.postprocessing
  function: softmax_to_label
  config:
    labels: [negative, neutral, positive]
    confidence_threshold: 0.7
interface:
  input_schema:
    type: object
    required: [text]
    properties:
      text:
        type: string
        minLength: 1
        maxLength: 5000
  output_schema:
    type: object
    required: [sentiment, confidence, scores]
    properties:
      sentiment:
        type: string
        enum: [negative, neutral, positive]
      confidence:
        type: number
        minimum: 0
        maximum: 1
      scores:
        type: object
        required: [negative, neutral, positive]
        properties:
          negative:
            type: number
          neutral:
            type: number
          positive:
            type: number
  batch_size: 32
resources:
  cpu: 2.0
  memory: 4Gi
  gpu: 0
"""

MANIFEST = """
id: sentiment-prod-useast
model_card_ref:
  repository: https://bitbucket.org/acme/sentiment-analysis-model.git
  path: model-card.yaml
  ref: v1.2.3 # Pinned to specific version
enabled: true
deployment_config:
  region: us-east-1
  replicas: 3
  priority: 80 # High priority
  worker_selector:
    pool: production
    region: us-east-1
  endpoint: https://api.acme.com/v1/sentiment
metadata:
  owner: ops-team@acme.com
  deployed_at: "2025-10-28T10:30:00Z"
  deployed_by: jane.doe@acme.com
"""

WORKER_CONFIG = """
worker_id: worker-us-east-1a
supported_schema_versions:
  - "3.0.0"
  - "3.1.0"
broker_endpoint: https://broker.acme.com
capacity:
  max_models: 5
  max_memory: 16Gi
  max_cpu: 8.0
  max_gpu: 0
labels:
  pool: production
  region: us-east-1
  zone: us-east-1a
  instance_type: c5.2xlarge
eviction_policy:
  strategy: lru
  enable_auto_eviction: true
"""


@pytest.fixture(scope="session")
def examples() -> dict[DocumentKind, Any]:
    texts = {
        DocumentKind.MODEL_CARD: MODEL_CARD,
        DocumentKind.MANIFEST: MANIFEST,
        DocumentKind.WORKER_CONFIG: WORKER_CONFIG,
    }
    return {kind: YAML(typ="safe", pure=True).load(text) for kind, text in texts.items()}
