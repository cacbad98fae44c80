"""The configs of the study m_sharpness."""
